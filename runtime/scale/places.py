"""Where results lie: a folder that all machines reach, or object storage (`ovavel.runtime.scale.objects`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ovavel.runtime.errors import InputError
from ovavel.runtime.system.files import atomic_write, make_folder, output_error

__all__ = ["ASIDE", "STALE_S", "Folder", "Place", "prepare_aside"]

ASIDE = "aside"
STALE_S = 86_400
"""What has lain aside for so long was left there by a process that died."""


def prepare_aside(out: Path) -> Path:
    """Create `aside/` in the folder `out` and return it; remove what processes that died a day ago left there.

    Raises:
        OutputError: it cannot be created.
    """
    aside = out / ASIDE
    make_folder(aside)
    for part in aside.iterdir():
        with contextlib.suppress(OSError):  # another process may remove it, too
            if time.time() - part.stat().st_mtime > STALE_S:
                part.unlink()
    return aside


class Place(Protocol):
    """Files by name, with "/" between folders. Many processes may use one at once, and none sees half a file.

    Each method raises StorageError if object storage cannot be reached or refuses, and those that write raise
    OutputError if a disk is full or a folder is not writable.
    """

    def prepare(self) -> None:
        """Make it ready for results, and remove what processes that died a day ago left aside."""

    def shown(self, name: str) -> str:
        """Path or URL of a file, for messages."""

    def refuses(self, name: str) -> str:
        """Why no file can have this name, as in "is not UTF-8"; empty where one can."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            InputError: it is there, and cannot be read.
        """

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each name with `read` of it, in their order."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it."""

    def record(self, name: str, data: bytes) -> None:
        """Write a file that other processes may be writing too, with the same bytes.

        Raises:
            InputError: object storage has another one of this name. On a disk the last one wins.
        """

    def mark(self, name: str) -> bool:
        """Create an empty file aside, unless there is one; return whether it was created, by this process alone."""

    def remove(self, name: str) -> None:
        """Remove a file, if there is one and that is possible."""

    def names(self, below: str, *suffixes: str) -> Iterator[str]:
        """The files in the folder `below` and in its folders, in any order: all, or those that end in a suffix."""


class Folder:
    """A `Place` on a disk. Files are written in `aside/` and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:  # noqa: D102 - see Place
        for name in ("done", "failed"):
            make_folder(self.path / name)
        prepare_aside(self.path)

    def shown(self, name: str) -> str:  # noqa: D102
        return str(self.path / name)

    def refuses(self, name: str) -> str:  # noqa: ARG002, D102 - whatever a folder refuses is an OutputError
        return ""

    def read(self, name: str) -> bytes | None:  # noqa: D102
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # the latter for a name that no file has
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path / name} cannot be read: {why}; check it") from error

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:  # noqa: D102
        for name in names:
            yield name, self.read(name)

    def write(self, name: str, data: bytes) -> None:  # noqa: D102
        path = self.path / name
        make_folder(path.parent)
        aside = self.path / ASIDE  # not there in a folder of results without records
        atomic_write(path, data, aside=aside if aside.is_dir() else None)

    def record(self, name: str, data: bytes) -> None:  # noqa: D102
        self.write(name, data)

    def mark(self, name: str) -> bool:  # noqa: D102
        path = self.path / name
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        except FileExistsError:
            return False
        except OSError as error:
            raise output_error(path, error) from error
        return True

    def remove(self, name: str) -> None:  # noqa: D102
        with contextlib.suppress(OSError):
            (self.path / name).unlink(missing_ok=True)

    def names(self, below: str, *suffixes: str) -> Iterator[str]:  # noqa: D102
        for folder, _, names in os.walk(self.path / below):
            for name in names:
                if not suffixes or name.endswith(suffixes):
                    yield Path(folder, name).relative_to(self.path).as_posix()
