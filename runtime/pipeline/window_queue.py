"""The bounded queue between capture and encoder. Live, the newest window wins; for files, capture waits."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import replace

from ovavel.runtime.system.timing import Stopwatch
from ovavel.runtime.types import BUFFER, WINDOW_S, Gap, GapCause, Sense, Window

__all__ = ["Pace", "WindowQueue", "capacity"]

WAITING = 4
"""Windows that may wait for the encoder: a hiccup of a few seconds loses nothing, and decisions are never later than
that."""
ROOM = 30
"""Windows that may wait after the source was held up: they come all at once, which is no fault of the encoder."""
ROOM_FOR_S = 10.0
"""How long there is that much room."""
_LATE_S = 2.0
"""A window that comes this much later than the others was held up before it came here, for example by a stopped
process."""


def capacity(*, sound_first: bool) -> int:
    """Windows that may wait for the encoder of one source.

    Args:
        sound_first: whether sound may decide without the picture. Then the pictures of a whole buffer may have to be
            encoded for one decision, nine of them later than they came. If a picture takes a second or less, at most
            nine windows come meanwhile, so that none is dropped that would not be dropped anyway; if it takes longer,
            a stream whose pictures are all encoded cannot be held at all.
    """
    return WAITING + (BUFFER - 1 if sound_first else 0)


class Pace:
    """How fast windows come and go: who is to blame when the queue is full."""

    def __init__(self, capacity: int) -> None:
        """Watch a queue of `capacity` windows."""
        self.reader = Stopwatch()
        """Runs while the consumer of the updates is busy."""
        self._puts: deque[tuple[float, float]] = deque(maxlen=capacity)  # when, and the reading of `reader` then
        self._behind_s = math.inf  # the monotonic clock minus media time, when windows are on time

    def put(self, start_s: float) -> tuple[GapCause, bool]:
        """A window that starts at media time `start_s` is about to be put into the queue.

        Returns:
            The cause if a window has to be dropped for it, which is what took the time while the queue filled up; and
            whether this one was held up before it came here.
        """
        now_s, read_s = time.monotonic(), self.reader.total_s
        then_s, read_then_s = self._puts[0] if self._puts else (now_s, read_s)
        self._puts.append((now_s, read_s))
        reading = read_s - read_then_s > (now_s - then_s) / 2
        behind_s = now_s - start_s
        self._behind_s = min(self._behind_s, behind_s)
        cause = GapCause.READER_TOO_SLOW if reading else GapCause.ENCODER_TOO_SLOW
        return cause, behind_s - self._behind_s > _LATE_S


class WindowQueue:
    """First in, first out. A window that must go is emptied in its place, so every second still comes out, in order."""

    def __init__(self, capacity: int, *, live: bool) -> None:
        """Hold up to `capacity` windows. When full: `live` empties the oldest, otherwise `put` waits."""
        self._capacity = capacity
        self._live = live
        self._windows: deque[Window] = deque()
        self._full = 0  # windows in the queue that still hold a picture or sound
        self._closed = False
        self._room_until_s = 0.0
        self._change = threading.Condition()

    def put(self, window: Window, cause: GapCause = GapCause.ENCODER_TOO_SLOW, *, late: bool = False) -> list[Window]:
        """Add a window. Returns the windows that were dropped for it; after `close` that is the window itself.

        `cause` is why a window is dropped now; `late` says that the source was held up.
        """
        with self._change:
            if not self._live:
                self._change.wait_for(lambda: self._closed or len(self._windows) < self._capacity)
            if self._closed:
                return [window]
            now_s = time.monotonic()
            if late:
                self._room_until_s = now_s + ROOM_FOR_S
            capacity = max(ROOM, self._capacity) if now_s < self._room_until_s else self._capacity
            dropped: list[Window] = []
            while self._full >= capacity and _holds_media(window):
                oldest = next(i for i, w in enumerate(self._windows) if _holds_media(w))
                dropped.append(self._windows[oldest])
                self._windows[oldest] = _emptied(self._windows[oldest], cause)
                self._full -= 1
            self._windows.append(window)
            self._full += _holds_media(window)
            self._change.notify_all()
            return dropped

    def take(self, most: int) -> list[Window]:
        """Wait for windows and return up to `most` of them; an empty list once closed and drained."""
        with self._change:
            self._change.wait_for(lambda: self._windows or self._closed)
            windows = [self._windows.popleft() for _ in range(min(most, len(self._windows)))]
            self._full -= sum(map(_holds_media, windows))
            self._change.notify_all()
            return windows

    def close(self) -> None:
        """No more windows will come; what is queued can still be taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()


def _holds_media(window: Window) -> bool:
    return window.frame is not None or window.waveform is not None


def _emptied(window: Window, cause: GapCause) -> Window:
    senses: tuple[tuple[Sense, object], ...] = (("vision", window.frame), ("audio", window.waveform))
    lost = tuple(
        Gap(sense=sense, cause=cause, start_s=window.start_s, duration_s=WINDOW_S)
        for sense, content in senses
        if content is not None
    )
    return replace(window, frame=None, waveform=None, gaps=window.gaps + lost, dropped=cause)
