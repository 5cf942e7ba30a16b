"""Disks of a test's own: no other process sees them, and they are gone when the test is, however it ends."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec

import pytest

__all__ = ["mount_tmpfs", "with_own_mounts"]

P = ParamSpec("P")

# <sched.h> and <sys/mount.h> of Linux
_CLONE_NEWNS, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 0x20000, 0x20, 0x4000, 0x40000


def with_own_mounts(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test in a thread whose mounts are its own; skip it where that is not allowed."""

    def apart(*arguments: P.args, **fixtures: P.kwargs) -> None:
        _call("unshare", _CLONE_NEWNS)
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        test(*arguments, **fixtures)

    @functools.wraps(test)
    def run(*arguments: P.args, **fixtures: P.kwargs) -> None:
        with ThreadPoolExecutor(1, "own-mounts") as thread:
            thread.submit(apart, *arguments, **fixtures).result()

    return run


def mount_tmpfs(folder: Path, megabytes: int, *, again: bool = False) -> None:
    """Mount a disk of this size, or give the one that is there this size."""
    options = f"size={megabytes}m".encode()
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_REMOUNT if again else 0, options)


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        pytest.skip(f"there is no {name} here")
    if function(*(ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)):
        pytest.skip(f"cannot mount a file system, which needs root: {os.strerror(ctypes.get_errno())}")
