"""Read a network stream in a separate thread."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from ovavel.runtime.sources.connection import FROZEN_S, Feed
from ovavel.runtime.sources.media.decode import Media, Piece
from ovavel.runtime.sources.packet_tap import PacketTap

__all__ = ["StreamReader"]

QUEUE_PIECES = 64
STEADY_S = 0.3
"""Data that arrives at playback speed for this long is live."""
FASTER_S = 0.1
CATCH_UP_S = 3.0
"""Buffered data is skipped for no longer than this: a server may always send faster than playback speed."""


class StreamReader(Feed):
    """Decodes a network stream into a short queue. It owns its container: nothing else may use it meanwhile.

    Frames of a container without timestamps (JPEG over HTTP) are stamped on arrival. Data that was buffered while the
    stream was being opened is skipped where it cannot be placed: frames without timestamps, and a reopened stream, for
    which that time is already counted as lost.
    """

    def __init__(self, name: str, open_it: Callable[[], Media], *, address: str, again: bool) -> None:
        """Read what `open_it` opens; `again`: after a loss. `address` may contain secrets."""
        super().__init__(name, address=address)
        self._open_it = open_it
        self._again = again
        self.tap: PacketTap | None = None
        """The tap of the container it reads."""
        self._pieces: queue.Queue[Piece] = queue.Queue(QUEUE_PIECES)
        self.start()

    def get(self, *, timeout_s: float) -> Piece | None:
        """Return the next piece, or None if none arrives in time."""
        try:
            return self._pieces.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _serve(self) -> None:
        media = self._open_it()
        self.tap = media.tap
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
    """Distinguishes buffered from live data: buffered data arrives faster than it plays."""

    def __init__(self) -> None:
        self._begin_s: float | None = None
        self._delay_s = 0.0
        self._since_s = 0.0

    def caught_up(self, stamp_s: float | None, now_s: float) -> bool:
        """Whether data with the stream time `stamp_s` that arrives at `now_s` is live."""
        delay_s = self._delay_s if stamp_s is None else now_s - stamp_s
        if self._begin_s is None or delay_s < self._delay_s - FASTER_S:
            self._delay_s, self._since_s = delay_s, now_s
        self._begin_s = now_s if self._begin_s is None else self._begin_s
        return now_s - self._since_s >= STEADY_S or now_s - self._begin_s >= CATCH_UP_S
