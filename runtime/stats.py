"""What a session counts while it runs: windows, losses by cause, and time per stage."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.system.timing import Timings
from ovavel.runtime.types import WINDOW_S, DropCause, Gap, GapCause, Sense

__all__ = ["Stats"]


class Stats:
    """Counters of one session. Safe from any thread."""

    def __init__(self) -> None:
        self.timings = Timings()
        """Milliseconds per stage: preprocess, vision, audio, head, decide, latency."""
        self.economy = EconomyCounts()
        """Pictures that were looked at, and seconds that needed none."""
        self._lock = threading.Lock()
        self._windows = 0
        self._dropped: Counter[str] = Counter()
        self._gap_s: defaultdict[str, float] = defaultdict(float)
        self._missing: Counter[str] = Counter()
        self._channels: Counter[int] = Counter()
        self._busy_s = 0.0

    def window_done(self, busy_s: float) -> None:
        """Count a window that was encoded and decided, and the seconds of work it took."""
        with self._lock:
            self._windows += 1
            self._busy_s += busy_s

    def window_dropped(self, cause: GapCause | DropCause) -> None:
        """Count a window that was not encoded."""
        with self._lock:
            self._dropped[cause] += 1

    def picture_lost(self, *, counted: bool) -> None:
        """Count a second whose picture waited to be needed, and could not be encoded as the backend had failed.

        `counted`: whether its window was counted as decided by then; it is one that was dropped.
        """
        with self._lock:
            self._missing["vision"] += 1
            if counted:
                self._windows -= 1
                self._dropped[DropCause.BACKEND_FAILED] += 1

    def gap(self, gap: Gap) -> None:
        """Count the seconds of a gap under its cause."""
        with self._lock:
            self._gap_s[gap.cause] += gap.duration_s

    def sense_missing(self, sense: Sense) -> None:
        """Count a second in which `sense` was missing, for whatever reason."""
        with self._lock:
            self._missing[sense] += 1

    def heard(self, channel: int) -> None:
        """Count a second in which `channel` of the sound was listened to."""
        with self._lock:
            self._channels[channel] += 1

    @property
    def channels(self) -> dict[int, int]:
        """Seconds in which each channel of the sound was listened to; none for a mix."""
        with self._lock:
            return dict(sorted(self._channels.items()))

    @property
    def missing(self) -> dict[str, int]:
        """Seconds that could hold no event because a sense was missing, by sense."""
        with self._lock:
            return dict(self._missing)

    @property
    def windows(self) -> int:
        """Windows encoded and decided; together with `dropped`, every second of the source."""
        return self._windows

    @property
    def dropped(self) -> dict[str, int]:
        """Windows that were not encoded, by cause."""
        with self._lock:
            return dict(self._dropped)

    @property
    def gap_s(self) -> dict[str, float]:
        """Seconds of video or sound that were lost, by cause."""
        with self._lock:
            return dict(self._gap_s)

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of media; below 1 keeps up. 0 before the first window."""
        return self._busy_s / (self._windows * WINDOW_S) if self._windows else 0.0
