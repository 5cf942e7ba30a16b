"""A disk that is not mounted, or another one in its place, is an error and never a new store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ovavel.runtime.errors import InputError, OutputError
from ovavel.service.store.disk import identity
from ovavel.service.store.disk.identity import MARKER, claim, memory_of


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture
def own_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root folder is elsewhere."""
    stat = Path.stat

    def elsewhere(path: Path, **options: bool) -> object:
        found = stat(path, **options)
        return type("Stat", (), {"st_dev": -1, "st_ino": 0}) if path == Path("/") else found

    monkeypatch.setattr(Path, "stat", elsewhere)


def test_a_store_is_known_again(tmp_path: Path) -> None:
    first, again = claim(tmp_path / "data"), claim(tmp_path / "data")
    assert first == again
    assert first.forgotten == ""
    again.check()


@pytest.mark.usefixtures("own_disk")
def test_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "data"
    claim(folder)
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(InputError, match="mount its disk") as error:
        claim(folder)
    assert not folder.exists(), "no new store on the system disk"
    assert str(memory_of(folder)) in str(error.value), "it says how to begin another one"
    memory_of(folder).unlink()
    claim(folder)


def test_the_folder_is_on_another_disk_than_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path / "data")
    (tmp_path / "data" / MARKER).unlink()
    monkeypatch.setattr(identity, "_device", lambda _: -1)
    with pytest.raises(InputError, match="mount its disk"):
        claim(tmp_path / "data")


def test_another_disk_in_its_place(tmp_path: Path) -> None:
    claim(tmp_path / "data")
    claim(tmp_path / "other")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "other").rename(tmp_path / "data")
    with pytest.raises(InputError, match="another store"):
        claim(tmp_path / "data")


def test_a_store_that_was_deleted_on_the_system_disk_begins_again(tmp_path: Path) -> None:
    first = claim(tmp_path / "data")
    if first.device != Path("/").stat().st_dev:
        pytest.skip("temporary files are on a disk of their own here")
    shutil.rmtree(tmp_path / "data")
    claim(tmp_path / "data").check()


def test_a_disk_that_is_lost_while_the_service_runs(tmp_path: Path) -> None:
    found = claim(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "away")
    with pytest.raises(OutputError, match="mount"):
        found.check()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / MARKER).write_text('{"id": "other"}')
    with pytest.raises(OutputError, match="another disk"):
        found.check()


def test_a_machine_that_cannot_remember_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    assert "will not be noticed" in claim(tmp_path / "data").forgotten


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    claim(tmp_path / "data")
    memory_of(tmp_path / "data").write_text("{")
    claim(tmp_path / "data")
