"""The benchmark makes an archive of the format, measures, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.eval.archive.speed import main, make_archive
from ovavel.runtime.archive.care import Finding, examine


def test_what_it_makes_is_an_archive(tmp_path: Path) -> None:
    make_archive(tmp_path, cameras=1, days=1, size=128, seconds=500)
    assert not [each for each in examine(tmp_path) if isinstance(each, Finding)]


def test_it_measures_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--cameras", "1", "--days", "2", "--size", "64", "--seconds", "1000"]) == 0
    shown = capsys.readouterr().out
    for word in ("cold:", "warm:", "first answer", "peak memory", "recall@100", "ms a second"):
        assert word in shown
    assert not list(tmp_path.iterdir())
