"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.errors import InputError, OutputError, UsageError
from ovavel.runtime.system.paths import check_path

__all__ = [
    "atomic_write",
    "cache_folder",
    "check_private",
    "check_report_folder",
    "make_folder",
    "make_private_folder",
    "not_regular",
    "output_error",
    "output_folder",
    "report_folder",
]

_REPORTS = frozenset({".csv", ".html", ".json", ".md"})


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
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "is not a regular file")


def cache_folder() -> Path:
    """Where files are kept that can be made again: `$XDG_CACHE_HOME/ovavel`. It need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovavel"


def make_folder(path: Path) -> None:
    """Make the folder `path` and those above it, if need be: before long work, not after.

    Raises:
        OutputError: it cannot be made.
    """
    check_path(path, OutputError)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def report_folder(path: Path, name: str) -> Path:
    """Make the folder `path` that `--out` names and return it; `name` is the report that will be in it.

    Raises:
        UsageError: `path` looks like a file.
        OutputError: it cannot be made.
    """
    check_report_folder(path, name)
    make_folder(path)
    return path


def check_report_folder(path: Path | None, name: str) -> None:
    """Refuse what looks like a file for the folder of the report `name`. Raises UsageError."""
    if path and path.suffix.lower() in _REPORTS and not path.is_dir():
        raise UsageError(f"--out is a folder, and {name} goes into it: give --out {path.stem}, not {path}")


def make_private_folder(path: Path) -> None:
    """Make the folder `path` as `make_folder` does; it, and `cache_folder()` above it, let only their owner in.

    Raises:
        OutputError: it cannot be made.
        InputError: it is there and somebody else may write to it.
    """
    make_folder(path.parent.parent if path.parent == cache_folder() else path.parent)
    try:
        for each in (path.parent, path) if path.parent == cache_folder() else (path,):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    check_private(path)


def check_private(path: Path) -> None:
    """Refuse what somebody else may have written: `path`, and all folders of `cache_folder()` that it is in.

    What is not there is nobody's. The system's administrator may write everywhere in any case.

    Raises:
        InputError: it belongs to another user, or its group or everybody may write to it.
    """
    above = [each for each in path.parents if each.is_relative_to(cache_folder())]
    for each in (path, *above):
        try:
            found = each.stat()
        except OSError:
            continue
        if found.st_uid not in (os.geteuid(), 0):
            raise InputError(f"{each} belongs to another user, so what is in it is not trusted; delete it")
        if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise InputError(
                f"{each} can be written to by other users, so what is in it is not trusted; delete it, or, if nobody "
                f"else could: chmod go-w {each}"
            )


@contextlib.contextmanager
def output_folder(path: Path | None) -> Iterator[None]:
    """Make a folder for results as `make_folder` does; what was made and is still empty at the end is removed again."""
    if path:
        check_path(path, OutputError)
    made = [each for each in (path, *path.parents) if not each.exists()] if path else []
    if path:
        make_folder(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something, and then so do those above it
            for each in made:
                each.rmdir()


def atomic_write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` beside `path`, then rename it there, so that nobody ever reads half a file.

    A `private` file can be read and written by its owner alone; others as the process's umask says.

    Raises:
        OutputError: the disk is full, the folder is missing, or it may not be written to. What was at `path` is
            as it was, and nothing is left beside it.
    """
    check_path(path, OutputError)
    aside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(aside, flags, 0o600 if private else 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(path, error) from error
