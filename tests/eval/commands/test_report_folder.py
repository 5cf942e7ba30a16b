"""`--out` is a folder, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.cli import main

BUNDLE = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "bundle"
COMMANDS = {
    "bench": ["bench", "run", "--bundle", "none"],
    "compare": ["bench", "compare", "a", "b"],
    "data": ["eval", "data", "--data", "none"],
    "score": ["eval", "score", "--data", "none", "--bundle", str(BUNDLE)],
    "calibrate": ["eval", "calibrate", "--data", "none", "--bundle", str(BUNDLE)],
    "lag": ["eval", "lag", "--data", "none", "--bundle", str(BUNDLE)],
    "parity": ["eval", "parity", "none", "--bundle", str(BUNDLE)],
    "try": ["vocab", "try", str(BUNDLE.with_name("clip.mp4")), "--bundle", str(BUNDLE), "--phrases", "glass"],
    "cpu": ["bench", "cpu", "--weights", "none"],
    "gpu": ["bench", "gpu", "--device", "cpu"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("suffix", [".json", ".html", ".MD", ".csv"])
def test_a_file_is_no_folder(
    command: list[str], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command[1] in ("cpu", "gpu"):
        pytest.importorskip("onnx")
    out = tmp_path / f"report{suffix}"
    assert main([*command, "--out", str(out)]) == 2
    assert "--out is a folder" in capsys.readouterr().err
    assert not out.exists()
