"""`--out` is a folder, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.cli import main

COMMANDS = {
    "bench": ["bench", "run", "--bundle", "none"],
    "compare": ["bench", "compare", "a", "b"],
    "data": ["eval", "data", "--data", "none"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("suffix", [".json", ".html", ".MD", ".csv"])
def test_a_file_is_no_folder(
    command: list[str], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"report{suffix}"
    assert main([*command, "--out", str(out)]) == 2
    assert "--out is a folder" in capsys.readouterr().err
    assert not out.exists()
