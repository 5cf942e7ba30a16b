"""A disk that fails, lies or was cut off, and a file that others touched: nothing committed is lost in silence."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from support.service import camera_facts, news, run_facts

from ovavel.runtime.errors import InputError, OutputError
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store import database as database_module
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import FILE, Database, rows, translated

WAL = f"{FILE}-wal"


def begin(folder: Path) -> None:
    with Database.open(folder, ballast_bytes=0) as store, store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
        cameras.open_run(transaction, run_facts("run-1", "gate"))


def commit(store: Database, number: int) -> None:
    with store.write() as transaction:
        accounts.advance(transaction, "gate", to_us=number * 1_000_000, outcome="final", windows=1)
        events.record(transaction, news("start", number), event_id=f"e{number}", now_us=number, sinks=())


def kept(folder: Path) -> list[int]:
    """The events of a store that holds together."""
    with Database.open(folder, ballast_bytes=0) as store:
        assert violations(store.read) == []
        return [int(event[1:]) for (event,) in rows(store.read, "SELECT id FROM event ORDER BY session_event_id")]


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a service leaves that was killed after ten commits."""
    folder, copy = (tmp_path_factory.mktemp(name) for name in ("living", "dead"))
    begin(folder)
    with Database.open(folder, ballast_bytes=0) as store:
        for number in range(1, 11):
            commit(store, number)
        for name in (FILE, WAL):
            shutil.copy(folder / name, copy)
    return copy


@pytest.mark.parametrize("seed", range(8))
def test_what_a_power_cut_leaves_behind_the_log_costs_nothing(dead: Path, tmp_path: Path, seed: int) -> None:
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    chance = random.Random(seed)
    with (tmp_path / WAL).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 9000)))
    assert kept(tmp_path) == list(range(1, 11))


@pytest.mark.parametrize("seed", range(16))
def test_a_log_that_is_cut_or_damaged_ends_before_that_place(dead: Path, tmp_path: Path, seed: int) -> None:
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    chance = random.Random(seed)
    data = bytearray((tmp_path / WAL).read_bytes())
    at = chance.randrange(len(data))
    if seed % 2:
        del data[at:]
    else:
        data[at] ^= 0xFF
    (tmp_path / WAL).write_bytes(data)
    found = kept(tmp_path)
    assert found == list(range(1, len(found) + 1))


def test_without_its_log_a_store_is_what_it_was_before(dead: Path, tmp_path: Path) -> None:
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    (tmp_path / WAL).unlink()
    assert kept(tmp_path) == []


def test_a_damaged_page_is_refused_or_found(dead: Path, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(dead, folder)
    assert kept(folder) == list(range(1, 11))  # and its log is in the file now
    whole = (folder / FILE).read_bytes()
    for page in range(0, len(whole), 4096):
        place = tmp_path / str(page)
        place.mkdir()
        (place / FILE).write_bytes(whole[:page] + random.Random(page).randbytes(64) + whole[page + 64 :])
        found: list[str] = []
        try:
            with Database.open(place, ballast_bytes=0) as store, translated(place / FILE):
                found = violations(store.read)
        except InputError as error:
            found = [str(error)]
        assert found, page
        assert any("damaged" in each for each in found), found


class _FailingFile(apsw.VFSFile):
    def __init__(self, vfs: FailingDisk, name: object, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__(vfs.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._vfs.operation("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.operation("sync")
        super().xSync(flags)


class FailingDisk(apsw.VFS):
    """Fails at the n-th write or sync from now on, and at so many after it."""

    base = "unix"

    def __init__(self) -> None:
        self.countdown, self.failures = 0, 0
        super().__init__("failing", self.base, makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> _FailingFile:  # noqa: N802
        return _FailingFile(self, name, flags)

    def operation(self, what: str) -> None:
        self.countdown -= 1
        if -self.failures <= self.countdown < 0:
            raise apsw.IOError(f"the disk failed at a {what}")


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    found = FailingDisk()
    yield found
    found.unregister()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from SQLite's callbacks
@pytest.mark.parametrize("failures", [1, 5])
def test_a_disk_that_fails_now_and_then_loses_nothing_that_it_took(
    tmp_path: Path, disk: FailingDisk, failures: int
) -> None:
    failed = 0
    for operation in range(0, 60, 3):
        folder, taken = tmp_path / str(operation), []
        begin(folder)
        with Database.open(folder, ballast_bytes=0) as store:
            disk.countdown, disk.failures = operation, failures
            for number in range(1, 7):
                try:
                    commit(store, number)
                except OutputError:
                    failed += 1
                else:
                    taken.append(number)
            disk.failures = 0
            commit(store, 7)  # the disk is well again
        assert kept(folder) == [*taken, 7]
    assert failed


def test_another_program_s_lock_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_BUSY_MS", 50)
    begin(tmp_path)
    with (
        Database.open(tmp_path, ballast_bytes=0) as store,
        contextlib.closing(apsw.Connection(str(tmp_path / FILE))) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="locked by another program"):
            commit(store, 1)
        other.execute("ROLLBACK")
        commit(store, 1)
    assert kept(tmp_path) == [1]
