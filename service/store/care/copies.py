"""Copies of the store: made while a service writes it, and put in its place while none does."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ovavel.runtime.errors import InputError
from ovavel.runtime.system.files import make_folder, output_error
from ovavel.service.failpoints import reach
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import FILE, copy_to, one_row, open_readonly, translated
from ovavel.service.store.disk.folder import reserved
from ovavel.service.store.schema import VERSION

__all__ = ["Examination", "backup", "examine", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a store looks like."""

    events: int
    cameras: int
    free_bytes: int
    """On its disk."""
    violations: list[str]
    """What is wrong with it."""


def backup(folder: Path, path: Path) -> int:
    """Copy the store in `folder` to the new file `path`; returns how many events it holds.

    The copy is of one moment and whole, also while a service writes the store. Snapshots and clips are not in it.

    Raises:
        InputError: there is no store, it is damaged, or `path` exists.
        OutputError: the copy cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} exists; choose another name")
    with closing(open_readonly(folder / FILE)) as connection:
        copy_to(connection, path)
    with closing(open_readonly(path)) as copy:
        return int(one_row(copy, "SELECT count(*) FROM event")[0])


def restore(folder: Path, path: Path) -> Path | None:
    """Put the copy `path` in the place of the store in `folder`; returns where the store that was there lies now.

    Events that were open in the copy are ended when the service starts, as after a crash.

    Raises:
        InputError: `path` is no sound store, or a service uses the one in `folder`.
        OutputError: the folder cannot be written.
    """
    _check_copy(path)
    names = (folder / f"{FILE}.replaced-{number}" for number in count(1))
    aside = next(name for name in names if not name.exists())
    current, arriving = folder / FILE, folder / f".{FILE}.restored"
    make_folder(folder)
    try:
        with closing(open_readonly(path)) as connection:
            copy_to(connection, arriving)
        with reserved(folder):
            # Whatever moment this dies at, there is a store, and what was replaced lies whole beside it.
            parts = [part for part in _parts(current) if part.exists()]
            for part in parts:
                os.link(part, _beside(part, current, aside))
            reach("store.replaced-kept")
            for part in parts[1:]:  # a log must never be read into another file
                part.unlink()
            arriving.replace(current)
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise output_error(current, error) from error
    finally:
        arriving.unlink(missing_ok=True)
    return aside if parts else None


def examine(folder: Path) -> Examination:
    """Check the store in `folder`, which a service may be using.

    Raises:
        InputError: there is none, or it is damaged beyond reading.
    """
    with translated(folder / FILE), closing(open_readonly(folder / FILE)) as connection:
        version = int(one_row(connection, "PRAGMA user_version")[0])
        if version != VERSION:
            raise InputError(
                f"{folder / FILE} has version {version}, not {VERSION}; 'ovavel serve' of this version upgrades an "
                "older one when it starts"
            )
        events, cameras = one_row(connection, "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM camera)")
        return Examination(
            events=events,
            cameras=cameras,
            free_bytes=shutil.disk_usage(folder).free,
            violations=violations(connection, folder),
        )


def _parts(store: Path) -> list[Path]:
    """The file and what SQLite keeps beside it."""
    return [store, *(store.with_name(store.name + ending) for ending in ("-wal", "-shm"))]


def _beside(part: Path, store: Path, aside: Path) -> Path:
    return aside.with_name(part.name.replace(store.name, aside.name, 1))


def _check_copy(path: Path) -> None:
    """Check that `path` is a sound store that this ovavel can open.

    Raises:
        InputError: it is not.
    """
    with translated(path), closing(open_readonly(path)) as connection:
        version = int(one_row(connection, "PRAGMA user_version")[0])
        if not 1 <= version <= VERSION:
            raise InputError(f"{path} is no store that this ovavel can open (version {version} of at most {VERSION})")
        if version == VERSION and (wrong := violations(connection)):
            raise InputError(f"{path} is damaged: {wrong[0]}; choose another copy")
