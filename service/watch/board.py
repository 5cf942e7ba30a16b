"""What is known now of each camera, for the page and the metrics: written by one thread, read by others."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct

from ovavel.runtime.types import SegmentScores
from ovavel.service.capture.messages import Captured
from ovavel.service.store.seconds import Named
from ovavel.service.watch.runs.camera_watch import Seen
from ovavel.service.watch.runs.why import best

__all__ = ["Board", "Second", "coarse_s"]

_KEPT = 10
_MINUTE_S = 60


class Second(Struct, frozen=True, kw_only=True):
    """One second as people look at it."""

    start_s: float
    label: str
    margin: float
    final: bool
    missing: tuple[str, ...]
    skipped: str
    """Why its picture was not looked at, by choice; empty where it was, or there was none."""
    seen: tuple[Named, ...]
    """The classes that look most like it, best first."""
    heard: tuple[Named, ...]
    """The classes that sound most like it, best first."""


@dataclass(slots=True)
class _Camera:
    seconds: deque[Second] = field(default_factory=lambda: deque(maxlen=_KEPT))
    picture: bytes | None = None
    gap_s: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    final_us: int = 0
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=20))


def coarse_s(seconds: float) -> int:
    """Whole seconds, beyond a minute those of whole minutes: what is published at each change rarely changes then."""
    return round(seconds) if seconds < _MINUTE_S else int(seconds // _MINUTE_S * _MINUTE_S)


class Board:
    """The newest of each camera."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Camera] = {}
        self._change = threading.Condition()
        self.version = 0
        """Counts changes."""

    def show(self, camera: str, window: Captured | None, seen: Seen) -> None:
        """Take what one window, or the end of a run, brought."""
        seconds = [_second(each, seen.names) for each in seen.scores]
        with self._change:
            one = self._cameras.setdefault(camera, _Camera())
            if window:
                one.picture = window.picture or one.picture
                for gap in window.gaps:
                    one.gap_s[gap.sense, gap.cause] += gap.duration_s
                one.notices.extend(each.message for each in window.notices)
            one.notices.extend(seen.notices)
            for second in seconds:
                while one.seconds and one.seconds[-1].start_s >= second.start_s:
                    one.seconds.pop()
                one.seconds.append(second)
            if window and any(each.final for each in seen.scores):
                one.final_us = window.utc_us
            self.version += 1
            self._change.notify_all()

    def forget(self, camera: str) -> None:
        """Show nothing of a camera that was removed."""
        with self._change:
            self._cameras.pop(camera, None)
            self.version += 1
            self._change.notify_all()

    def wake(self) -> None:
        """Let those who wait look: something has come into the store."""
        with self._change:
            self.version += 1
            self._change.notify_all()

    def wait(self, version: int, timeout_s: float) -> int:
        """Wait until something changed since `version`; returns the present version."""
        with self._change:
            self._change.wait_for(lambda: self.version != version, timeout_s)
            return self.version

    def seconds(self, camera: str) -> tuple[Second, ...]:
        """The last ten seconds, oldest first."""
        with self._change:
            return tuple(self._cameras[camera].seconds) if camera in self._cameras else ()

    def picture(self, camera: str) -> bytes | None:
        """The newest picture, a WebP."""
        with self._change:
            return self._cameras[camera].picture if camera in self._cameras else None

    def final_us(self, camera: str) -> int:
        """When its last final decision was made; 0 before the first."""
        with self._change:
            return self._cameras[camera].final_us if camera in self._cameras else 0

    def gap_s(self, camera: str) -> dict[tuple[str, str], float]:
        """Seconds of video or audio that its windows lacked since the service started, by sense and cause."""
        with self._change:
            return dict(self._cameras[camera].gap_s) if camera in self._cameras else {}

    def lacking(self, camera: str) -> dict[str, dict[str, int]]:
        """The same in whole seconds, by sense, then by cause; beyond a minute in whole minutes: they rarely change."""
        found: dict[str, dict[str, int]] = {}
        for (sense, cause), seconds in sorted(self.gap_s(camera).items()):
            if count := coarse_s(seconds):
                found.setdefault(sense, {})[cause] = count
        return found

    def notices(self, camera: str) -> tuple[str, ...]:
        """The newest messages of its source, oldest first."""
        with self._change:
            return tuple(self._cameras[camera].notices) if camera in self._cameras else ()


def _second(scores: SegmentScores, names: tuple[str, ...]) -> Second:
    return Second(
        start_s=scores.start_s,
        label=scores.label,
        margin=round(scores.margin, 4),
        final=scores.final,
        missing=scores.missing,
        skipped=scores.skipped or "",
        seen=_best(scores.vision_similarity, names),
        heard=_best(scores.audio_similarity, names),
    )


def _best(similarity: np.ndarray, names: tuple[str, ...]) -> tuple[Named, ...]:
    return tuple(Named(label=names[index], value=value) for index, value in best(similarity))
