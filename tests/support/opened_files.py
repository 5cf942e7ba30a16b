"""Which files of a folder are opened, by whatever library: the kernel reports it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_OPENED = 0x20
_EVENT = struct.Struct("iIII")


class OpenedFiles:
    """Counts how often each file in `folders` is opened, from now on."""

    def __init__(self, folders: Sequence[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            watch = libc.inotify_add_watch(self._events, os.fsencode(folder), _OPENED)
            if watch < 0:
                raise OSError(ctypes.get_errno(), "cannot watch", str(folder))
            self._folders[watch] = folder

    def take(self) -> Counter[Path]:
        """Path → how often it was opened since the last call."""
        found: Counter[Path] = Counter()
        while True:
            try:
                data = os.read(self._events, 2**16)
            except BlockingIOError:
                return found
            while data:
                watch, _, _, size = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + size].rstrip(b"\0")
                found[self._folders[watch] / os.fsdecode(name)] += 1
                data = data[_EVENT.size + size :]

    def close(self) -> None:
        os.close(self._events)
