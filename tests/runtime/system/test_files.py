"""Folders for results: made before long work, and gone again where nothing came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import output_folder


def test_a_folder_that_nothing_was_written_to_goes_again_with_those_made_above_it(tmp_path: Path) -> None:
    def interrupted() -> None:
        with output_folder(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_there_or_holds_results_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with output_folder(tmp_path / "there" / "new"), output_folder(tmp_path / "there"):
        (tmp_path / "there" / "new" / "result").touch()
    with output_folder(tmp_path / "there" / "more"):
        pass
    with output_folder(None):
        pass
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["new"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="part of this path is a file"), output_folder(tmp_path / "file" / "new"):
        pass
