"""Folders for results: made before long work, and gone again where nothing came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import output_folder


def test_empty_folders_are_removed_with_their_created_parents(tmp_path: Path) -> None:
    def interrupted() -> None:
        with output_folder(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_existing_folders_and_those_with_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with output_folder(tmp_path / "there" / "new"), output_folder(tmp_path / "there"):
        (tmp_path / "there" / "new" / "result").touch()
    with output_folder(tmp_path / "there" / "more"):
        pass
    with output_folder(None):
        pass
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["new"]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="part of this path is a file"), output_folder(tmp_path / "file" / "new"):
        pass
