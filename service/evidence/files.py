"""Files of assets: whole or not at all, in folders that only the service's user can read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.system.files import output_error
from ovavel.service.failpoints import reach
from ovavel.service.store.assets import NOT_FINISHED, give_up
from ovavel.service.store.database import Database, rows

__all__ = ["MISSING", "disk_bytes", "finish", "free_bytes", "part_of", "recover_assets", "remove", "sweep", "write"]

MISSING = "its file is missing"
_MEDIA = "media"


def part_of(path: Path) -> Path:
    """Where a file is while it is being written."""
    return path.with_name(f".{path.name}.part")


def write(path: Path, data: bytes) -> str:
    """Write a file; returns its SHA-256.

    Raises:
        OutputError: it cannot be written; nothing of it is left.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise output_error(path, error) from error
    finish(path)
    return hashlib.sha256(data).hexdigest()


def finish(path: Path) -> None:
    """Put a file whose part is on disk in its place.

    Raises:
        OutputError: it cannot be renamed; nothing of it is left.
    """
    part = part_of(path)
    reach("asset.file-written")
    try:
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise output_error(path, error) from error
    reach("asset.file-renamed")


def remove(path: Path) -> None:
    """Remove a file whose row says already that it is gone; one that cannot be removed now is found by `sweep`."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in it
            path.parent.rmdir()
    reach("asset.file-removed")


def free_bytes(folder: Path) -> int:
    """Space that the service may use on the disk of `folder`."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def disk_bytes(folder: Path) -> int:
    """Size of the disk of `folder`."""
    disk = os.statvfs(folder)
    return disk.f_blocks * disk.f_frsize


def recover_assets(store: Database) -> int:
    """At the start: bring rows and files together again, whatever happened; returns how many rows had to change."""
    with store.write() as transaction:
        changed = give_up(transaction, NOT_FINISHED)
        for asset, path, size in rows(transaction, "SELECT id, path, bytes FROM asset WHERE state = 'ready'"):
            if _size(store.folder / path) != size:
                transaction.execute(
                    "UPDATE asset SET state = 'failed', cause = ?, path = NULL WHERE id = ?", (MISSING, asset)
                )
                changed += 1
    sweep(store)
    return changed


def sweep(store: Database, *, being_written: frozenset[Path] = frozenset()) -> int:
    """Remove files without a row, but for those that are being written; returns how many that were.

    Nobody else may put files in their places meanwhile.
    """
    known = {store.folder / path for (path,) in rows(store.read, "SELECT path FROM asset WHERE path IS NOT NULL")}
    removed = 0
    for path in _files(store.folder / _MEDIA):
        if path not in known and path not in being_written:
            remove(path)
            removed += 1
    return removed


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
