"""What `ovavel localize` says of --shard and --on before it begins."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ovavel.runtime.cli import main
from ovavel.runtime.install import install_command

ASSETS = Path(__file__).parents[3] / "eval" / "demo" / "assets"


def localize(*arguments: object) -> int:
    return main(["localize", *map(str, arguments), "--bundle", str(ASSETS / "bundle")])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--shard", "0/2"], "--shard writes its results into a folder: give --out"),
        (["--on", "auto"], "--on writes its results into a folder: give --out"),
        (["--shard", "3/2", "--out", "OUT"], "--shard takes i/n"),
        (["--on", "http://host", "--out", "OUT"], "--on takes auto or ray://HOST:PORT, not 'http://host'"),
        (["--on", "ray://", "--out", "OUT"], "--on takes auto or ray://HOST:PORT"),
        (["--on", "auto", "--out", "OUT", "--device", "cuda:1"], "a GPU of one machine"),
    ],
)
def test_what_cannot_work_is_refused_first(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in arguments]
    assert localize(tmp_path / "gone.mp4", *words) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_ray_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert localize(ASSETS / "clip.mp4", "--out", tmp_path / "out", "--on", "auto") == 1
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert f"--on needs ray, which is not installed. Install it with: {install_command('cluster')}" in said


def test_a_new_recording_elsewhere_moves_no_results(tmp_path: Path) -> None:
    recordings, out = tmp_path / "in", tmp_path / "out"
    for day in ("monday", "tuesday"):
        (recordings / day).mkdir(parents=True)
        shutil.copy(ASSETS / "clip.mp4", recordings / day)
        assert localize(recordings, "--out", out, "--format", "csv", "--device", "cpu") == 0
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.csv"))
    assert found == ["monday/clip.mp4.ovavel.csv", "tuesday/clip.mp4.ovavel.csv"]


def test_a_part_without_recordings_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [localize(ASSETS / "clip.mp4", "--out", tmp_path, "--shard", f"{n}/40", "--device", "cpu") for n in (1, 2)]
    assert codes == [0, 0]
    assert "0 of 1 recordings" in capsys.readouterr().out
