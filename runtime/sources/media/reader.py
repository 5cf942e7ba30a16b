"""A network stream, read in a thread of its own."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from ovavel.runtime.sources.connection import FROZEN_S, Feed
from ovavel.runtime.sources.media.decode import Media, Piece

__all__ = ["StreamReader"]

QUEUE_PIECES = 64
STEADY_S = 0.3
"""What arrives no faster than it plays for so long arrives as it happens."""
FASTER_S = 0.1
CATCH_UP_S = 3.0
"""What was buffered is passed over for no longer than this: a server may send faster than it plays, for good."""


class StreamReader(Feed):
    """Decodes a network stream into a short queue. Owns its container: nothing else may touch it while it reads.

    Pictures of a container without timestamps (JPEG pictures over HTTP) are stamped when they arrive. What was buffered
    while the stream was being opened is passed over where it has no place: pictures without a time of their own, and a
    stream that is opened again, whose time on the wall is counted as lost by then.
    """

    def __init__(self, name: str, open_it: Callable[[], Media], *, address: str, again: bool) -> None:
        """Read what `open_it` opens; `again` after a loss. `address` may hold secrets."""
        super().__init__(name, address=address)
        self._open_it = open_it
        self._again = again
        self._pieces: queue.Queue[Piece] = queue.Queue(QUEUE_PIECES)
        self.start()

    def get(self, *, timeout_s: float) -> Piece | None:
        """The next piece, or None if none comes in time."""
        try:
            return self._pieces.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _serve(self) -> None:
        media = self._open_it()
        arrivals = _Arrivals() if self._again or media.untimed else None
        seen_s: float | None = None
        try:
            for piece in media.pieces():
                now_s = time.monotonic()
                self.brought_s = now_s
                if media.untimed and piece.sense == "vision":
                    duration_s = piece.duration_s if seen_s is None else min(now_s - seen_s, FROZEN_S)
                    seen_s, piece = now_s, replace(piece, stamp_s=now_s, duration_s=duration_s)
                if arrivals is not None:
                    if not arrivals.caught_up(piece.stamp_s, now_s):
                        continue
                    arrivals = None
                self.bring()
                self._put(piece)
                if self.stopping.is_set():
                    return
        finally:
            media.close()

    def _put(self, piece: Piece) -> None:
        while not self.stopping.is_set():
            with suppress(queue.Full):
                self._pieces.put(piece, timeout=0.1)
                return


class _Arrivals:
    """Tells what was buffered from what arrives as it happens: it comes faster than it plays."""

    def __init__(self) -> None:
        self._begin_s: float | None = None
        self._delay_s = 0.0
        self._since_s = 0.0

    def caught_up(self, stamp_s: float | None, now_s: float) -> bool:
        """Whether what has the stream's own time `stamp_s` and arrives at `now_s` was not buffered."""
        delay_s = self._delay_s if stamp_s is None else now_s - stamp_s
        if self._begin_s is None or delay_s < self._delay_s - FASTER_S:
            self._delay_s, self._since_s = delay_s, now_s
        self._begin_s = now_s if self._begin_s is None else self._begin_s
        return now_s - self._since_s >= STEADY_S or now_s - self._begin_s >= CATCH_UP_S
