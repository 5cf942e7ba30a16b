"""The folder of a store: on a local disk, and one process's at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.errors import InputError
from ovavel.runtime.system.files import output_error

__all__ = ["check_local", "lock_folder", "reserved"]

_LOCK = "lock"
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph", "afs"})


def lock_folder(folder: Path) -> int:
    """Take the folder for this process; closing the returned descriptor releases it.

    Raises:
        InputError: another process has it.
        OutputError: it cannot be written.
    """
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise InputError(f"{folder} is in use by another 'ovavel serve'; stop it, or choose another folder") from error
    return descriptor


def check_local(folder: Path) -> None:
    """Check that the folder is on a disk of this machine.

    Raises:
        InputError: it is on a network file system.
    """
    kind = _file_system(folder)
    if kind in _NETWORK:
        raise InputError(f"{folder} is on a network file system ({kind}), where SQLite loses data; choose a local disk")


def _file_system(folder: Path) -> str:
    """The kind of file system that `folder` is on, as the kernel names it; empty where it does not say."""
    place, best, kind = folder.resolve(), -1, ""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        mount = mount.encode("utf-8", "surrogateescape").decode("unicode_escape")
        if place.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), name
    return kind


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keep every service away from the store in `folder` while the block runs.

    Raises:
        InputError: one uses it.
        OutputError: the folder cannot be written.
    """
    lock = lock_folder(folder)
    try:
        yield
    finally:
        os.close(lock)
