"""What waits to be decided, camera by camera: fair, in order, bounded, and every dropped window in its place."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ovavel.runtime.types import BUFFER, DropCause, GapCause
from ovavel.service.capture.feed import Delivery
from ovavel.service.capture.messages import Captured

__all__ = ["ROOM", "ROOM_TO_WAKE", "FairQueue", "Waiting"]

ROOM = 4
"""Windows of one camera that may wait for the encoder: a hiccup of a few seconds loses nothing."""
ROOM_TO_WAKE = ROOM + BUFFER - 1
"""The same where sound can wake vision: the pictures of a whole buffer are then encoded in one turn."""


class Waiting(NamedTuple):
    """The next piece of news of one camera."""

    camera: str
    news: Delivery
    dropped: GapCause | DropCause | None
    """Why its window was emptied while it waited."""


class FairQueue:
    """First in, first out within a camera; cameras take turns.

    A turn is one window. A camera whose turn took more work waits until others have had as much (start-time fair
    queueing, Goyal, Vin and Cheng 1996), and one that was emptied takes none: otherwise a camera of which much was
    dropped would use its turns for what is left of that. What a camera did not use before is no credit.
    """

    def __init__(self, cameras: Mapping[str, int]) -> None:
        """Hold news of these cameras; `cameras` says which one in so many of their windows is looked at."""
        self.room = ROOM
        """Windows with media that each camera may hold; may be changed at any time."""
        self._every = dict(cameras)
        self._lines: dict[str, deque[Waiting]] = {camera: deque() for camera in cameras}
        self._turn = deque(self._lines)
        self._work: defaultdict[str, int] = defaultdict(int)  # where each camera's next turn begins, in windows
        self._level = 0  # where the last turn began
        self._closed = False
        self._change = threading.Condition()

    def add(self, camera: str, every: int) -> None:
        """Hold news of a camera from now on, or look at another one in so many of its windows."""
        with self._change:
            self._every[camera] = every
            if camera not in self._lines:
                self._lines[camera] = deque()
                self._turn.append(camera)

    def remove(self, camera: str) -> None:
        """Hold nothing of a camera any more."""
        with self._change:
            if self._lines.pop(camera, None) is not None:
                self._turn.remove(camera)
                del self._every[camera]
                self._work.pop(camera, None)

    def put(self, camera: str, news: Delivery) -> None:
        """Add news of a camera. The oldest window that waits is emptied where there is no room for another."""
        with self._change:
            line = self._lines.get(camera)
            if line is None or self._closed:
                return
            waiting = Waiting(camera, news, None)
            if isinstance(news, Captured) and news.index % self._every[camera]:
                waiting = _emptied(waiting, DropCause.NOT_LOOKED_AT)
            line.append(waiting)
            held = [index for index, each in enumerate(line) if _holds_media(each)]
            for index in held[: max(0, len(held) - self.room)]:
                line[index] = _emptied(line[index], GapCause.ENCODER_TOO_SLOW)
            self._change.notify_all()

    def take(self, most: int, timeout_s: float | None = None) -> list[Waiting]:
        """Wait for news and return the next of up to `most` cameras, those first that had least, then longest ago.

        An empty list: nothing came for `timeout_s`, or the queue is closed and drained.
        """
        with self._change:
            self._change.wait_for(lambda: self._closed or any(self._lines.values()), timeout_s)
            ready = [camera for camera in self._turn if self._lines[camera]]
            begins = {camera: max(self._work[camera], self._level) for camera in ready}
            chosen = sorted(ready, key=begins.__getitem__)[:most]
            for camera in chosen:
                self._turn.remove(camera)
                self._turn.append(camera)
                self._work[camera] = begins[camera] + _holds_media(self._lines[camera][0])
            if chosen:
                self._level = begins[chosen[0]]
            return [self._lines[camera].popleft() for camera in chosen]

    def charge(self, camera: str, windows: int) -> None:
        """Count the last turn of a camera as so many windows more."""
        with self._change:
            if camera in self._lines:
                self._work[camera] += windows

    def waiting(self, camera: str) -> int:
        """Windows of a camera that wait."""
        with self._change:
            return len(self._lines.get(camera, ()))

    @property
    def has_news(self) -> bool:
        """Whether anything waits."""
        with self._change:
            return any(self._lines.values())

    @property
    def closed(self) -> bool:
        """Whether nothing new is taken."""
        return self._closed

    def close(self) -> None:
        """Take nothing new; what waits can still be taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()


def _holds_media(waiting: Waiting) -> bool:
    news = waiting.news
    return isinstance(news, Captured) and (news.frame is not None or news.sound is not None)


def _emptied(waiting: Waiting, why: GapCause | DropCause) -> Waiting:
    assert isinstance(waiting.news, Captured)
    empty = msgspec.structs.replace(waiting.news, frame=None, sound=None)
    return Waiting(waiting.camera, empty, why)
