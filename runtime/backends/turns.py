"""A lock that threads get in the order in which they ask."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """A lock, used by `with`: first come, first served, so that no thread waits for ever beside busy ones.

    A `threading.Lock` that is released and taken again at once is often got by the same thread: those that wait have to
    wake up first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for the bookkeeping alone
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()  # one for each thread, released when it is its turn

    def locked(self) -> bool:
        """Whether a thread has it."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    def __enter__(self) -> None:
        turn, queued = threading.Lock(), False
        turn.acquire()
        try:
            with self._lock:
                if not self._taken:
                    self._taken = True
                    return
                self._waiting.append(turn)
                queued = True
            turn.acquire()
        except BaseException:  # Ctrl-C
            if queued:
                self._give_up(turn)
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._next()

    def _give_up(self, turn: threading.Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # it has come meanwhile
                self._next()

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._taken = False
