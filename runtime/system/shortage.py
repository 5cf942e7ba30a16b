"""Knowing a lack of memory when a library reports it, each in its own way."""

from __future__ import annotations

import errno
import re

__all__ = ["has_room", "lacks_memory"]

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
