"""Atomic writes, private files, and folders for results."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
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
    "whole_folder",
]

_REPORTS = frozenset({".csv", ".html", ".json", ".md"})


def output_error(path: Path | str, error: OSError) -> OutputError:
    """Convert an `OSError`: what could not be written, why, and what to do."""
    advice = {
        "FileNotFoundError": "choose an existing folder that accepts files",
        "NotADirectoryError": "part of this path is a file; choose another folder",
        "FileExistsError": "there is a file of this name; choose another folder",
        "IsADirectoryError": "this is a folder; give the path of a file",
        "PermissionError": "choose a folder you may write to",
    }.get(type(error).__name__, "free some space or choose another place")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {advice}")


def not_regular(path: Path) -> str:
    """Return why `path` is not a regular file, as in "is a pipe"; empty if it is one.

    Reading a pipe or a device may block forever.

    Raises:
        OSError: there is no such file, or it cannot be examined.
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
    """Return the folder of files that can be rebuilt, `$XDG_CACHE_HOME/ovavel`. It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovavel"


def make_folder(path: Path) -> None:
    """Create the folder `path` and its parents if necessary: before long work, not after.

    Raises:
        OutputError: it cannot be created.
    """
    check_path(path, OutputError)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def report_folder(path: Path, name: str) -> Path:
    """Create and return the folder `path` given with `--out`; `name` is the report that will be in it.

    Raises:
        UsageError: `path` looks like a file.
        OutputError: it cannot be created.
    """
    check_report_folder(path, name)
    make_folder(path)
    return path


def check_report_folder(path: Path | None, name: str) -> None:
    """Refuse what looks like a file for the folder of the report `name`. Raises UsageError."""
    if path and path.suffix.lower() in _REPORTS and not path.is_dir():
        raise UsageError(f"--out is a folder, and {name} goes into it: give --out {path.stem}, not {path}")


def make_private_folder(path: Path) -> None:
    """Create the folder `path` like `make_folder`; only its owner can access it and `cache_folder()` above it.

    Raises:
        OutputError: it cannot be created.
        InputError: it exists and another user can write to it.
    """
    make_folder(path.parent.parent if path.parent == cache_folder() else path.parent)
    try:
        for each in (path.parent, path) if path.parent == cache_folder() else (path,):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    check_private(path)


def check_private(path: Path) -> None:
    """Refuse `path` if it, or a folder of `cache_folder()` above it, may have been written by another user.

    Missing files are accepted. The administrator can write everywhere in any case.

    Raises:
        InputError: it belongs to another user, or its group or everyone can write to it.
    """
    above = [each for each in path.parents if each.is_relative_to(cache_folder())]
    for each in (path, *above):
        try:
            found = each.stat()
        except OSError:
            continue
        if found.st_uid not in (os.geteuid(), 0):
            raise InputError(f"{each} belongs to another user, so its content is not trusted; delete it")
        if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise InputError(
                f"{each} can be written to by other users, so its content is not trusted; delete it, or, if you "
                f"are the only user: chmod go-w {each}"
            )


@contextlib.contextmanager
def output_folder(path: Path | None) -> Iterator[None]:
    """Create a folder for results like `make_folder`; created folders that are still empty at the end are removed."""
    if path:
        check_path(path, OutputError)
    made = [each for each in (path, *path.parents) if not each.exists()] if path else []
    if path:
        make_folder(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty, and so neither are its parents
            for each in made:
                each.rmdir()


def atomic_write(path: Path, data: bytes, *, private: bool = False, aside: Path | None = None) -> None:
    """Write `data` to a temporary file, then rename it, so that no reader sees half a file.

    Only its owner can read and write a `private` file; other files follow the process's umask. The temporary file lies
    in the folder `aside`, which is on the same file system, by default that of `path`.

    Raises:
        OutputError: the disk is full, or the folder is missing or not writable. `path` is unchanged, and no temporary
            file remains.
    """
    check_path(path, OutputError)
    part = (aside or path.parent) / f".{secrets.token_hex(8)}.part"
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o600 if private else 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out`, and rename it to `out` at the end: nobody sees half of what is written into it.

    An older folder `out` is replaced; on any error, it is kept and the new one is removed.

    Raises:
        OutputError: the disk is full, or a folder is missing or not writable.
    """
    check_path(out, OutputError)
    # Named first and made within the block: a signal between the two leaves nothing behind.
    aside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            aside.mkdir(mode=0o700)
            yield aside
            _put_in_place(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise output_error(out, error) from error


def _put_in_place(aside: Path, out: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    aside.chmod(0o777 & ~umask)  # until now only the owner was let in
    if not out.exists():
        aside.rename(out)
        return
    old = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        old.mkdir(mode=0o700)
        out.rename(old / "old")
        aside.rename(out)
    except BaseException:
        if not out.exists():
            (old / "old").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
