"""Folders for results: made before long work, gone again where nothing came of it, and replaced whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import output_folder, whole_folder


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


def test_an_older_folder_is_kept_until_the_new_one_is_in_its_place(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "old").touch()
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == out and self.parent == tmp_path:
            raise KeyboardInterrupt
        return rename(self, target)

    def write() -> None:
        with whole_folder(out) as aside:
            (aside / "new").touch()
            assert [path.name for path in out.iterdir()] == ["old"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert [path.name for path in out.iterdir()] == ["old"]
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [path.name for path in out.iterdir()] == ["new"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def write(out: Path) -> None:
        with whole_folder(out) as aside:
            (aside / "half").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="there is a file of this name"):
        write(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
