"""Media time of a run → UTC, through anchors that are taken again when the wall clock is set."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from ovavel.service.store.cameras import Anchor

__all__ = ["STEP_US", "WallClock", "boot_id"]

STEP_US = 500_000
"""A wall clock that moves against the monotonic one by this much was set; less is the drift that NTP corrects."""

_KEPT = 16
"""Anchors that are remembered: an event that began before that many steps of the clock has moved with the oldest."""


class WallClock:
    """Where media time lies on the wall clock. Pure: whoever calls it reads the clocks."""

    def __init__(self, start: Anchor) -> None:
        """Begin at `start`, the run's first anchor."""
        self._anchors = deque([start], maxlen=_KEPT)

    def observe(self, *, media_us: int, utc_us: int, monotonic_us: int) -> Anchor | None:
        """Compare three clocks read at one moment; return a new anchor if the wall clock was set since the last one."""
        newest = self._anchors[-1]
        step_us = (utc_us - monotonic_us) - (newest.utc_us - newest.monotonic_us)
        if abs(step_us) < STEP_US:
            return None
        anchor = Anchor(media_us=media_us, utc_us=utc_us, monotonic_us=monotonic_us, cause="clock step")
        self._anchors.append(anchor)
        return anchor

    def utc_us(self, media_us: int) -> int:
        """UTC of a moment of media time, by the wall clock that was in force then."""
        return self._moved(media_us, "").utc_us

    def since(self, media_us: int, cause: str) -> tuple[Anchor, ...]:
        """The anchors of a run that begins at `media_us`: one there, of this cause, and those that were taken later."""
        return self._moved(media_us, cause), *(each for each in self._anchors if each.media_us > media_us)

    def _moved(self, media_us: int, cause: str) -> Anchor:
        """The anchor in force at `media_us`, as if it had been taken then."""
        anchor = next((each for each in reversed(self._anchors) if each.media_us <= media_us), self._anchors[0])
        passed_us = media_us - anchor.media_us
        return Anchor(
            media_us=media_us,
            utc_us=anchor.utc_us + passed_us,
            monotonic_us=anchor.monotonic_us + passed_us,
            cause=cause,
        )


def boot_id() -> str:
    """Id of the machine's present boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
