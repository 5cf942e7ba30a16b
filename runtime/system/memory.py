"""Memory: recognizing that it ran out, however a library reports it, and returning what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
import threading
from collections.abc import Iterator

__all__ = ["freed_at_once", "has_room", "lacks_memory"]

_ROOM_BYTES = 64 * 2**20

_SAID = re.compile(
    r"failed to map segment|cannot allocate memory|unable to allocate|failed to allocate|bad_?alloc|out of memory"
    r"|can't start new thread|insufficient memory",
    re.IGNORECASE,
)


def lacks_memory(error: BaseException | None) -> bool:
    """Whether `error`, or one that led to it, says that memory (or room for the stack of a thread) ran out.

    Beside `MemoryError` there is ENOMEM, the loader that cannot map a library, C++'s `bad_alloc` in the text of some
    other exception, and Python's threads that do not start.
    """
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if _SAID.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def has_room() -> bool:
    """Whether there is memory for anything that an undamaged file asks for: one that asks for more is damaged."""
    try:
        bytearray(_ROOM_BYTES)
    except MemoryError:
        return False
    return True


_M_MMAP_THRESHOLD = -3  # glibc's malloc.h
_INITIAL_BYTES, _LARGEST_BYTES = 128 * 2**10, 32 * 2**20
"""glibc moves the size from which a block gets a mapping of its own up between these, when such a block is freed."""

_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def freed_at_once() -> Iterator[None]:
    """Within this context, large blocks go back to the system as soon as they are freed; needs glibc.

    Loading a graph copies its weights several times. glibc soon takes such blocks from its heap, where the freed ones
    stay between those in use: 5 % more at the peak and afterwards. Outside, the heap is the faster one.
    """
    global _users
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) or (lambda *_: 0)
    with _lock:
        _users += 1
        mallopt(_M_MMAP_THRESHOLD, _INITIAL_BYTES)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
