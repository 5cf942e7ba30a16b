"""The benchmark makes an archive of the format, measures, and leaves nothing behind unless it was asked to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovavel.eval.archive.made_up import make_archive
from ovavel.eval.archive.speed import main
from ovavel.runtime.archive.care import Finding, examine

SMALL = ("--cameras", "1", "--days", "2", "--size", "64", "--seconds", "1000")


@pytest.mark.parametrize("distinct", [0, 2])
def test_what_it_makes_is_an_archive(tmp_path: Path, distinct: int) -> None:
    make_archive(tmp_path, cameras=2, days=2, size=128, seconds=500, distinct=distinct)
    assert not [each for each in examine(tmp_path) if isinstance(each, Finding)]
    files = {each.stat().st_ino for each in tmp_path.rglob("vision.i8")}
    assert len(files) == (distinct or 4)


def test_it_measures_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, figures, plot = tmp_path / "archive", tmp_path / "speed.json", tmp_path / "speed.svg"
    folder.mkdir()
    assert main([str(folder), *SMALL, "--json", str(figures), "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    for word in ("cold:", "warm:", "first answer", "memory of a process", "recall@100", "ms a second"):
        assert word in shown
    assert not list(folder.iterdir())
    written = json.loads(figures.read_text())
    assert written["machine"]["date"]
    assert written["figures"]["warm"][0]["seconds"] == 2000
    assert written["figures"]["memory"]["peak_mib"] > written["figures"]["memory"]["anonymous_mib"] > 0
    assert plot.read_text().startswith("<svg")


def test_what_is_kept_is_measured_again_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = (str(tmp_path), "--keep", "--repeat", "1", "--distinct", "1")
    assert main([*keep, *SMALL]) == 0
    assert "made in" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main([*keep, *SMALL]) == 0
    assert "made in" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for mistake in ([*keep, *SMALL, "--days", "3"], [str(tmp_path), *SMALL]):
        with pytest.raises(SystemExit):
            main(mistake)
    assert "another shape" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
