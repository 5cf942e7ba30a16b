"""The SQLite file itself: one process, one writer, many readers; a full disk and an older version survived.

Every change goes through `Database.write`, one transaction that is on disk when it returns.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovavel.runtime.errors import InputError, MissingExtraError, OutputError
from ovavel.runtime.system.files import make_folder, output_error
from ovavel.service.failpoints import reach
from ovavel.service.store.disk.folder import check_local, lock_folder
from ovavel.service.store.schema import MIGRATIONS, VERSION

try:
    import apsw
except ImportError as error:
    raise MissingExtraError("apsw", "serve", need="The store") from error

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "BALLAST",
    "BALLAST_BYTES",
    "FILE",
    "Database",
    "Transaction",
    "copy_to",
    "one_row",
    "open_readonly",
    "rows",
    "translated",
]

FILE = "ovavel.sqlite3"
BALLAST = "ballast"
BALLAST_BYTES = 32 << 20
"""Disk space that is held back and given up when the disk is nearly full: there SQLite cannot even delete a row."""

_HEADER = b"SQLite format 3\0"
_BUSY_MS = 5000

Transaction = apsw.Connection
"""The connection inside `Database.write`: what is executed there is committed together, or not at all."""


class Database:
    """The store's file, opened for writing by one process."""

    def __init__(self, folder: Path, connection: apsw.Connection, lock: int, *, ballast_bytes: int) -> None:
        self.folder = folder
        self._connection, self._lock, self._ballast_bytes = connection, lock, ballast_bytes
        self._writing = threading.Lock()
        self._readers = threading.local()
        self.committed: Callable[[float], object] = lambda _: None
        """Called after each commit with the seconds that it took to reach the disk."""
        self.grown: Callable[[], object] = lambda: None
        """Called after each commit that brought rows of the event log or of the outbox, whoever wrote them."""
        self._newest = self._news()

    @classmethod
    def open(cls, folder: Path, *, ballast_bytes: int = BALLAST_BYTES) -> Self:
        """Open the store in `folder`, which is created if needed, and bring an older file to the present version.

        Raises:
            InputError: another process has it open, it is damaged, of a newer version, or on a network file system.
            OutputError: it cannot be written.
        """
        check_local(folder)
        make_folder(folder)
        lock = lock_folder(folder)
        try:
            connection = _connect(folder / FILE)
            try:
                _upgrade(connection, folder / FILE)
                with translated(folder / FILE):
                    database = cls(folder, connection, lock, ballast_bytes=ballast_bytes)
                database.hold_ballast()
            except BaseException:
                connection.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        return database

    def close(self) -> None:
        """Write the log back into the file and release the lock. May be called twice."""
        with self._writing:
            if self._lock < 0:
                return
            # A reader in another thread, or a full disk: then the log is read next time.
            with contextlib.suppress(apsw.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction: on disk when the block ends, undone when it raises. Blocks other writers, not readers.

        Raises:
            OutputError: the disk is full, ballast included, or failed; nothing of it was written.
            InputError: the file turned out to be damaged.
        """
        with self._writing:
            with translated(self.folder / FILE):
                self._begin()
            try:
                reach("store.transaction-open")
                with translated(self.folder / FILE):
                    yield self._connection
                    newest = self._news()
                    reach("store.before-commit")
                    began_s = time.perf_counter()
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with contextlib.suppress(apsw.Error):  # some errors have rolled it back already
                        self._connection.execute("ROLLBACK")
                raise
            reach("store.after-commit")
            self.committed(time.perf_counter() - began_s)
            grown, self._newest = newest != self._newest, newest
        if grown:
            self.grown()

    def _news(self) -> int:
        """A number that grows with the event log and the outbox, and only with them."""
        query = "SELECT coalesce(sum(seq), 0) FROM sqlite_sequence WHERE name IN ('event_log', 'outbox')"
        return int(one_row(self._connection, query)[0])

    def _begin(self) -> None:
        # Before the disk is full: a commit that fails has undone its transaction, and could not be repeated.
        if self._ballast_bytes and self._free_bytes() < self._ballast_bytes // 4:
            self.free_ballast()
        self._connection.execute("BEGIN IMMEDIATE")

    def _free_bytes(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    @property
    def read(self) -> apsw.Connection:
        """A read-only connection of the calling thread. It sees what was committed when each statement began."""
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = open_readonly(self.folder / FILE)
        return connection

    def free_ballast(self) -> bool:
        """Give the held-back space to the disk; whether there was any."""
        reach("store.before-ballast-freed")
        try:
            (self.folder / BALLAST).unlink()
        except FileNotFoundError:
            return False
        return True

    def hold_ballast(self) -> bool:
        """Hold space back again, where there is room for twice as much; whether it is held now."""
        path, size = self.folder / BALLAST, self._ballast_bytes
        try:
            if not size or (path.exists() and path.stat().st_size == size):
                return bool(size)
            path.unlink(missing_ok=True)
            if self._free_bytes() < 2 * size:
                return False
            with path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            path.unlink(missing_ok=True)
            return False
        return True


def rows(connection: apsw.Connection, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return connection.execute(query, tuple(values)).fetchall()


def one_row(connection: apsw.Connection, query: str, values: Sequence[object] = ()) -> tuple[Any, ...]:
    """The one row of a query that always has one.

    Raises:
        LookupError: it has none.
    """
    for row in rows(connection, query, values):
        return row
    raise LookupError(f"no row for {query!r} with {values!r}")


def open_readonly(path: Path) -> apsw.Connection:
    """Open a store's file to read, beside a service that writes it.

    Raises:
        InputError: there is no such file, or it is no store.
    """
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(_BUSY_MS)
        rows(connection, "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF")
    return connection


def _connect(path: Path) -> apsw.Connection:
    with translated(path):
        # SQLite takes a file of a few bytes for an empty database and writes over it.
        if path.exists() and path.stat().st_size and _first_bytes(path) != _HEADER:
            raise InputError(f"{path} is not a store of ovavel, or is damaged; choose another folder")
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(_BUSY_MS)
        # FULL: an event that was reported must outlive a power cut; a commit takes about 3 ms. Without spilling,
        # a full disk shows at the commit alone.
        # All rows are asked for: what follows the first one would not be executed otherwise.
        rows(
            connection,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; "
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA cache_spill = OFF",
        )
        return connection


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HEADER))


def _upgrade(connection: apsw.Connection, path: Path) -> None:
    with translated(path):
        version = int(one_row(connection, "PRAGMA user_version")[0])
        if version > VERSION:
            raise InputError(
                f"{path} was written by a newer ovavel (store version {version}, this one knows {VERSION}); "
                "update ovavel, or put the copy that was made before the update in its place"
            )
        if version == 0 and one_row(connection, "SELECT count(*) FROM sqlite_schema")[0]:
            raise InputError(f"{path} is not a store of ovavel; choose another folder")
        if version == VERSION:
            return
        if version:
            copy_to(connection, path.with_name(f"{path.name}.version-{version}"))
            reach("store.migration-copied")
        before = _rows(connection)
        connection.execute("PRAGMA foreign_keys = OFF")
        with connection:
            for sql in MIGRATIONS[version:]:
                connection.execute(sql)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            after = _rows(connection)
            lost = [name for name, count in before.items() if name in after and after[name] != count]
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
            if lost or broken:
                raise InputError(
                    f"{path} cannot be brought to version {VERSION}: rows of {lost or broken} would be lost"
                )
        connection.execute("PRAGMA foreign_keys = ON")


def _rows(connection: apsw.Connection) -> dict[str, int]:
    names = [
        str(name)
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    return {name: int(one_row(connection, f'SELECT count(*) FROM "{name}"')[0]) for name in names}  # noqa: S608


def copy_to(connection: apsw.Connection, path: Path) -> None:
    """Copy the whole store to the file `path`, while others write, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    try:
        with translated(aside):
            target = apsw.Connection(str(aside))
            try:
                with target.backup("main", connection, "main") as backup:
                    while not backup.done:
                        backup.step(256)
                target.execute("PRAGMA journal_mode = DELETE")
            finally:
                target.close()
        descriptor = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reach("store.backup-written")
        aside.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, which name the file `path`."""
    try:
        yield
    except apsw.FullError as error:
        raise OutputError(f"cannot write {path}: the disk is full; free some space") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise InputError(
            f"{path} is damaged ({error}); stop the service, move the folder aside, and put a copy of it in its place"
        ) from error
    except (apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.NoLFSError) as error:
        raise OutputError(f"cannot use {path} ({error}); check the disk and its permissions") from error
    except apsw.BusyError as error:
        raise OutputError(f"{path} was locked by another program for {_BUSY_MS / 1000:g} s; close it") from error
