"""`ovavel train features`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.training.caches import command, contents

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.runtime.cli import main


def test_the_command_prints_a_summary(
    broken: tuple[Path, Any],
    uninterrupted: dict[str, bytes],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(broken[0], tiny_weights, tmp_path)) == 0
    reported = capsys.readouterr().out
    assert re.search(r"6 clips encoded now, [\d.]+ segments/s; 0 were already in the cache", reported)
    assert "6 of 16 clips could be read; 10 damaged" in reported
    assert str(FeatureCache.open(tmp_path).path) in reported
    assert contents(tmp_path) == uninterrupted
    assert main(["train", "features", "--data", str(broken[0]), "--dry-run", "--splits", "train"]) == 0
    assert re.search(r"[\d.]+ segments/s with \d+ process", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x"], "either --weights or --bundle"),
        (["--out", "x", "--weights", "w", "--bundle", "b"], "either --weights or --bundle"),
        (["--weights", "w"], "Give --out"),
        (["--out", "x", "--bundle", "b", "--precision", "bf16"], "are for --weights"),
        (["--out", "x", "--weights", "none.pth", "--config", "tiny"], "none.pth"),
        (["--out", "x", "--bundle", "none"], "no bundle at none"),
        (["--dry-run", "--splits", "training"], "the splits"),
    ],
    ids=str,
)
def test_the_command_reports_errors(
    whole: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "features", "--data", str(whole), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("ovavel: ")
    assert message in error
