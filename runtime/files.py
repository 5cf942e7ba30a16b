"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.errors import OutputError

__all__ = ["atomic_write", "cache_folder", "make_folder", "not_regular", "output_error", "output_folder"]


def output_error(path: Path | str, error: OSError) -> OutputError:
    """Put an error of the operating system into words: what could not be written, why, and what to do."""
    advice = {
        "FileNotFoundError": "choose a folder that is there and takes files",
        "NotADirectoryError": "part of this path is a file; choose another folder",
        "FileExistsError": "there is a file of this name; choose another folder",
        "IsADirectoryError": "this is a folder; give the path of a file",
        "PermissionError": "choose a folder you may write to",
    }.get(type(error).__name__, "free some space or choose another place")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {advice}")


def not_regular(path: Path) -> str:
    """Why `path` is nothing to be read like a file, as in "is a pipe"; empty where it is one.

    Reading a pipe or a device may wait for ever.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    kinds = {
        stat.S_IFDIR: "is a folder",
        stat.S_IFIFO: "is a pipe",
        stat.S_IFSOCK: "is a socket",
        stat.S_IFCHR: "is a device",
        stat.S_IFBLK: "is a device",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "is no regular file")


def cache_folder() -> Path:
    """Where files are kept that can be made again: `$XDG_CACHE_HOME/ovavel`. It need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovavel"


def make_folder(path: Path) -> None:
    """Make the folder `path` and those above it, if need be: before long work, not after.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def output_folder(path: Path | None) -> Iterator[None]:
    """Make a folder for results as `make_folder` does; what was made and is still empty at the end is removed again."""
    made = [each for each in (path, *path.parents) if not each.exists()] if path else []
    if path:
        make_folder(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something, and then so do those above it
            for each in made:
                each.rmdir()


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename it there, so that nobody ever reads half a file.

    Raises:
        OutputError: the disk is full, the folder is missing, or it may not be written to. What was at `path` is
            as it was, and nothing is left beside it.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(path, error) from error
