"""What the economy of one camera saved: since the service started, and over the last hour."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from ovavel.runtime.economy.counts import EconomyCounts, EconomyFigures
from ovavel.runtime.economy.work import Work

__all__ = ["CameraCounts"]

_HOUR_S, _MINUTE_S = 3600.0, 60.0
_DRIFTS = 10_000


class CameraCounts(EconomyCounts):
    """Counters of one camera, over all of its runs. Safe from any thread."""

    def __init__(self, work: Work | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Count; `work` is that of one second, and `clock` gives seconds."""
        super().__init__(work)
        self._clock, self._marking = clock, threading.Lock()
        self._marks = deque([(clock(), self.figures)])  # the counts of each minute of the last hour, and one before
        self._newest_s = clock()  # when the last second was counted
        self._found: deque[tuple[float, float]] = deque(maxlen=_DRIFTS)  # when an audit found which drift

    def second(self, *, picture: bool, sound: bool) -> None:
        """Count a second, and what there was to encode."""
        now_s = self._clock()
        with self._marking:
            self._newest_s = now_s
            if now_s - self._marks[-1][0] >= _MINUTE_S:
                self._marks.append((now_s, self.figures))
            while len(self._marks) > 1 and self._marks[1][0] <= now_s - _HOUR_S:
                self._marks.popleft()
        super().second(picture=picture, sound=sound)

    def audited(self, drift: float | None, *, failed: bool) -> None:
        """Count an audit, and the drift that it found if it was one of a reused embedding."""
        super().audited(drift, failed=failed)
        if drift is not None:
            with self._marking:
                self._found.append((self._clock(), drift))

    @property
    def last_hour(self) -> EconomyFigures:
        """What was counted over the last hour, to the minute; since the start where that is later."""
        now, since_s = self.figures, self._clock() - _HOUR_S
        with self._marking:
            marks = [*self._marks, *([(self._newest_s, now)] if self._newest_s <= since_s else [])]
            drifts = [drift for when_s, drift in self._found if when_s > since_s]
        then = next((figures for when_s, figures in reversed(marks) if when_s <= since_s), marks[0][1])
        skipped = {cause: count - then.skipped.get(cause, 0) for cause, count in now.skipped.items()}
        return EconomyFigures(
            pictures=now.pictures - then.pictures,
            encoded=now.encoded - then.encoded,
            reused=now.reused - then.reused,
            sounds=now.sounds - then.sounds,
            sounds_reused=now.sounds_reused - then.sounds_reused,
            lost=now.lost - then.lost,
            skipped={cause: count for cause, count in skipped.items() if count},
            audited=now.audited - then.audited,
            audits_failed=now.audits_failed - then.audits_failed,
            drift_p99=float(np.quantile(drifts, 0.99)) if drifts else None,
            drift_max=max(drifts, default=None),
            most_at_once=now.most_at_once,
            gflop_all=_less(now.gflop_all, then.gflop_all),
            gflop_done=_less(now.gflop_done, then.gflop_done),
        )


def _less(now: float | None, then: float | None) -> float | None:
    return None if now is None or then is None else now - then
