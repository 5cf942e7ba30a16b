"""Recordings as people have them, through `ovavel localize`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.demo_copies import BUNDLE
from support.runtime.everyday import Answer

from ovavel.runtime.cli import main
from ovavel.runtime.results import read_json


@pytest.fixture
def localize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Answer]:
    def run(path: Path) -> Answer:
        folder = tmp_path / "results"
        code = main(["localize", str(path), "--bundle", str(BUNDLE), "--out", str(folder), "--format", "json"])
        reported = capsys.readouterr()
        return Answer(code, read_json(folder / f"{path.name}.ovavel.json"), reported.out, reported.err)

    return run
