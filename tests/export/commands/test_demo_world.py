"""`ovavel train demo-world` at small size: every step once, and invalid input."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.traced_once import TracedOnce

from ovavel.eval.demo.assets import Assets
from ovavel.runtime.cli import main

SMALL = ["--segments", "100", "--steps", "2", "--train-clips", "1", "--val-clips", "1", "--test-clips", "1"]


def test_a_recipe_is_checked_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["train", "demo-world", "--out", str(tmp_path / "world"), "--recipe", "nope"]) == 2
    assert "there is no recipe 'nope'" in capsys.readouterr().err
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("content", ["[]", "{", pytest.param('{"seed": ' + "[" * 100_000, id="deep")])
def test_damaged_numbers_are_refused(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (tmp_path / "world.json").write_text(content)
    assert main(["train", "demo-world", "--out", str(tmp_path)]) == 1
    assert "world.json is damaged" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(400)
def test_it_makes_the_demo_and_resumes_only_with_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, traced_once: TracedOnce
) -> None:
    from ovavel.training.demo_world import encoders

    flat = {name: replace(getattr(encoders.CONFIG, name), blocks=1) for name in ("vision", "audio", "text")}
    monkeypatch.setattr(encoders, "CONFIG", replace(encoders.CONFIG, **flat))
    command = ["train", "demo-world", "--out", str(tmp_path), *SMALL]
    assert main(command) == 0
    assets = Assets.open(tmp_path / "assets")
    assert assets.bundle.manifest.calibration is not None
    assert assets.truth.duration_s == 40
    files = {path: path.read_bytes() for path in (tmp_path / "assets").rglob("*") if path.is_file()}
    shutil.rmtree(tmp_path / "head")
    (tmp_path / "assets" / "clip.mp4").unlink()
    assert main(command) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "assets").rglob("*") if path.is_file()} == files
    assert main([*command, "--seed", "2"]) == 2
    assert "was started with other numbers (seed 1)" in capsys.readouterr().err
