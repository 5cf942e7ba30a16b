"""Whether a folder is the store that it was before: a disk that is not mounted must not become an empty store.

A store has a file with its id. This machine remembers the id of the store that it used at a place.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from ovavel.runtime.errors import InputError, OutputError
from ovavel.runtime.session_info import new_id
from ovavel.runtime.system.files import atomic_write, make_folder
from ovavel.service.store.disk.folder import check_local

__all__ = ["MARKER", "Identity", "claim", "memory_of"]

T = TypeVar("T")

MARKER = "store.json"
"""File of a store that has its id."""


class _Marker(Struct, frozen=True, kw_only=True):
    id: str


class _Memory(Struct, frozen=True, kw_only=True):
    id: str
    folder: str
    device: int
    """`st_dev` of the folder."""
    own_disk: bool
    """Whether it was on another file system than the root folder."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A folder that is known to be a store, and the disk on which it was found."""

    folder: Path
    device: int
    marker: int
    """Inode of the file with the id."""
    forgotten: str
    """Why this machine will not remember the store; empty where it does."""

    def check(self) -> None:
        """Make sure that the folder is still the same one.

        Raises:
            OutputError: another disk, or none, is in its place.
        """
        try:
            found = (self.folder / MARKER).stat()
        except OSError as error:
            raise OutputError(
                f"{self.folder} is not the store any more ({error.strerror}); mount its disk and start again"
            ) from error
        if (found.st_dev, found.st_ino) != (self.device, self.marker):
            raise OutputError(f"{self.folder} is on another disk now; mount that of the store and start again")


def claim(folder: Path) -> Identity:
    """Make sure that `folder` is the store that was used at this place before, or begin one where none was.

    Raises:
        InputError: it is another one, its disk is not mounted, or it is on a network file system.
        OutputError: a new one cannot be begun.
    """
    check_local(folder)  # before anything of it is remembered
    memory = memory_of(folder)
    known, found = _read(memory, _Memory), _read(folder / MARKER, _Marker)
    if known is not None:
        _compare(folder, memory, known, found)
    make_folder(folder)
    if found is None:
        found = _Marker(id=new_id())
        atomic_write(folder / MARKER, msgspec.json.encode(found) + b"\n")
    status = (folder / MARKER).stat()
    now = _Memory(
        id=found.id,
        folder=str(folder.resolve()),
        device=status.st_dev,
        own_disk=status.st_dev != Path("/").stat().st_dev,
    )
    forgotten = ""
    if now != known:
        try:
            make_folder(memory.parent)
            atomic_write(memory, msgspec.json.encode(now) + b"\n")
        except OutputError as error:
            forgotten = f"a missing mount of {folder} will not be noticed: {error}"
    return Identity(folder, status.st_dev, status.st_ino, forgotten)


def memory_of(folder: Path) -> Path:
    """The file in which this machine remembers the store at `folder`."""
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or os.environ.get("XDG_STATE_HOME")
    place = Path(state) if state else Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return place / "ovavel" / "stores" / f"{name}.json"


def _compare(folder: Path, memory: Path, known: _Memory, found: _Marker | None) -> None:
    advice = f"mount its disk; to use {folder} as it is now, remove {memory} first"
    if found is not None and found.id != known.id:
        raise InputError(f"{folder} is another store than the one that was there before; {advice}")
    if found is None and (known.own_disk or _device(folder) != known.device):
        raise InputError(f"the store that was in {folder} before is not there: there is no {MARKER}; {advice}")


def _device(folder: Path) -> int:
    """The disk on which `folder` is, or would be."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    return place.stat().st_dev


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
