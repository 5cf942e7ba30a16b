"""What a session did not compute, and what it looked at all the same."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from ovavel.runtime.economy.work import Work
from ovavel.runtime.types import SkipCause

__all__ = ["EconomyCounts", "EconomyFigures"]

_DRIFTS = 10_000
"""Newest audits whose drift is kept for the percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomyFigures:
    """The counts of a session at one moment."""

    pictures: int = 0
    """Seconds that had a picture."""
    encoded: int = 0
    """Pictures that were encoded, those of audits among them."""
    reused: int = 0
    """Pictures that kept the embedding of an earlier one, as they had not changed."""
    sounds: int = 0
    """Seconds that had a sound."""
    sounds_reused: int = 0
    """Sounds that kept the embedding of an earlier one; all others were encoded."""
    lost: int = 0
    """Pictures that were needed and could not be encoded. They count as no saving."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Seconds decided without their picture, by `SkipCause`. Some of these pictures were encoded later, as the
    surroundings of a second that needed its own."""
    audited: int = 0
    """Pictures and sounds that were encoded to measure what reusing or skipping would have cost."""
    audits_failed: int = 0
    """Audits beyond the drift budget, or with a similarity outside what was assumed."""
    drift_p99: float | None = None
    """99th percentile of the drift that audits found, as 1 - cosine; None before the first."""
    drift_max: float | None = None
    most_at_once: int = 0
    """Most pictures that were encoded for one second: the backlog when sound wakes vision."""
    gflop_all: float | None = None
    """Operations of both encoders without economy, in 1e9; None where the sizes of the encoders are not known."""
    gflop_done: float | None = None

    @property
    def saved(self) -> float | None:
        """Share of the encoders' operations that was saved, in [0, 1]."""
        return None if not self.gflop_all or self.gflop_done is None else 1 - self.gflop_done / self.gflop_all


class EconomyCounts:
    """Counters of one session. Safe from any thread."""

    def __init__(self, work: Work | None = None) -> None:
        """Count; `work` is that of one second."""
        self._work = work
        self._lock = threading.Lock()
        self._pictures = self._encoded = self._reused = self._lost = self._most = self._failed = 0
        self._sounds = self._sounds_reused = 0
        self._skipped: Counter[str] = Counter()
        self._audited = 0
        self._drifts: deque[float] = deque(maxlen=_DRIFTS)
        self._drift_max: float | None = None

    def second(self, *, picture: bool, sound: bool) -> None:
        """Count a second, and what there was to encode."""
        with self._lock:
            self._pictures += picture
            self._sounds += sound

    def looked(self, *, encoded: int, reused: int = 0) -> None:
        """Count pictures that were encoded for one second, and pictures that kept an embedding."""
        with self._lock:
            self._encoded += encoded
            self._reused += reused
            self._most = max(self._most, encoded)

    def heard(self, *, reused: bool) -> None:
        """Count a sound that kept an embedding, or did not."""
        with self._lock:
            self._sounds_reused += reused

    def lost(self, pictures: int) -> None:
        """Count pictures that were needed and could not be encoded."""
        with self._lock:
            self._lost += pictures

    def skipped(self, cause: SkipCause) -> None:
        """Count a second that was finally decided without its picture."""
        with self._lock:
            self._skipped[cause] += 1

    def audited(self, drift: float | None, *, failed: bool) -> None:
        """Count an audit, and the drift that it found if it was one of a reused embedding."""
        with self._lock:
            self._audited += 1
            self._failed += failed
            if drift is not None:
                self._drifts.append(drift)
                self._drift_max = max(self._drift_max or 0.0, drift)

    @property
    def figures(self) -> EconomyFigures:
        """All counts so far."""
        with self._lock:
            work, drifts = self._work, self._drifts
            new_sounds = self._sounds - self._sounds_reused
            return EconomyFigures(
                pictures=self._pictures,
                encoded=self._encoded,
                reused=self._reused,
                sounds=self._sounds,
                sounds_reused=self._sounds_reused,
                lost=self._lost,
                skipped=dict(sorted(self._skipped.items())),
                audited=self._audited,
                audits_failed=self._failed,
                drift_p99=float(np.quantile(drifts, 0.99)) if drifts else None,
                drift_max=self._drift_max,
                most_at_once=self._most,
                gflop_all=work.of(self._pictures - self._lost, self._sounds) if work else None,
                gflop_done=work.of(self._encoded, new_sounds) if work else None,
            )
