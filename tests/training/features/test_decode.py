"""Decoding alone."""

from __future__ import annotations

from pathlib import Path

from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.training.features.decode import decode_only, select_clips


def test_a_dry_run_measures_decoding(broken: tuple[Path, dict[tuple[str, str], str]]) -> None:
    bench = OVAVEBench.open(broken[0])
    result = decode_only(bench, select_clips(bench, ["val", "test"]), workers=1)
    assert result.clips == 12
    assert set(result.damaged) == {key for key in broken[1] if key[0] != "train"}
    assert result.segments_per_s > 1
