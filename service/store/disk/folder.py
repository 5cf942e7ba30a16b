"""The folder of a store: on a local disk, and one process's at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.errors import InputError
from ovavel.runtime.system.files import output_error

__all__ = ["check_local", "lock_folder", "reserved"]

_LOCK = "lock"
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "gpfs", "beegfs", "orangefs", "davfs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.juicefs"),
        *("fuse.goofys", "fuse.gcsfuse", "fuse.smbnetfs", "fuse.curlftpfs", "fuse.davfs", "fuse.moosefs"),
    )
)
"""Where locks and memory that is mapped do not hold between machines, or fail halfway: WAL needs both."""


def lock_folder(folder: Path) -> int:
    """Take the folder for this process; closing the returned descriptor releases it.

    Raises:
        InputError: another process has it, or the file system has no locks.
        OutputError: it cannot be written.
    """
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"{folder} is in use by another 'ovavel serve'; stop it, or choose another folder") from error
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"{folder} is on a file system without locks ({error.strerror}), where two services would damage the "
            "store; choose a local disk"
        ) from error
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
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, path, name, *_ = line.split(b" ")
        mount = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), path))
        if place.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), name.decode("ascii", "replace")
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
