"""Separates a sound card's drift from the jitter of its timestamps, and both from samples that were lost.

A sound card counts samples with a crystal of its own, some tens of ppm off the media clock, and each block's timestamp
is late or early by some milliseconds.
"""

from __future__ import annotations

import math
from statistics import median

__all__ = ["JUMP_S", "ClockFilter"]

JUMP_S = {True: 0.120, False: 0.040}
"""By `live`: a timestamp this far off is a hole or an overlap, and no jitter."""

ASTRAY_S = {True: 0.030, False: 0.010}
"""By `live`: timestamps that stay this far off on one side are a small hole or overlap."""


class ClockFilter:
    """Follows how far timestamps are ahead of the sample count, and how fast that grows: a Kalman filter of two states.

    The state is the offset in seconds and the drift in seconds per second (a card that runs slow has a positive one).
    Offset and drift may wander a little, so old timestamps are forgotten over some tens of seconds.
    """

    JITTER_S = 0.010
    """Standard deviation of a timestamp."""
    CRYSTAL = 200e-6
    """Standard deviation of the drift before anything is known: consumer crystals are within some 200 ppm."""
    OFFSET_WANDER = 3e-8
    """Variance that the offset gains per second: losses too small to be seen as jumps."""
    DRIFT_WANDER = 7e-13
    """Variance that the drift gains per second: 20 ppm in ten minutes, as a device warms up."""
    ASTRAY_FOR = (5, 0.5)
    """So many timestamps in a row, over so many seconds, have to stay astray on one side to be a jump."""

    def __init__(self, *, live: bool) -> None:
        self._jump_s, self._astray_s = JUMP_S[live], ASTRAY_S[live]
        self.drift = 0.0
        self._drift_variance = self.CRYSTAL**2
        self.restart()

    def restart(self) -> None:
        """Start over after a hole: the next timestamp defines offset 0. The drift is the device's and is kept."""
        self.offset_s = 0.0
        self._variance = self.JITTER_S**2
        self._covariance = 0.0
        self._astray: list[float] = []
        self._astray_for_s = 0.0

    @property
    def uncertainty_s(self) -> float:
        """Standard deviation of `offset_s`."""
        return math.sqrt(self._variance)

    def observe(self, residual_s: float, elapsed_s: float) -> float:
        """Take in how far a timestamp is ahead of the sample count, `elapsed_s` after the one before.

        Returns the jump in seconds that has to be made at once (then call `restart`), or 0.0.
        """
        self.offset_s += self.drift * elapsed_s
        self._variance += (
            2 * elapsed_s * self._covariance + elapsed_s**2 * self._drift_variance + self.OFFSET_WANDER * elapsed_s
        )
        self._covariance += elapsed_s * self._drift_variance
        self._drift_variance += self.DRIFT_WANDER * elapsed_s

        surprise_s = residual_s - self.offset_s
        if abs(surprise_s) >= self._jump_s:
            return residual_s
        if abs(surprise_s) < self._astray_s or (self._astray and (self._astray[-1] > 0) != (surprise_s > 0)):
            self._astray, self._astray_for_s = [], 0.0
        if abs(surprise_s) >= self._astray_s:
            self._astray.append(surprise_s)
            self._astray_for_s += elapsed_s
            if len(self._astray) >= self.ASTRAY_FOR[0] and self._astray_for_s >= self.ASTRAY_FOR[1]:
                return self.offset_s + median(self._astray)
            # One timestamp that is far off must not pull more than an ordinary one.
            surprise_s = math.copysign(self._astray_s, surprise_s)

        total = self._variance + self.JITTER_S**2
        gain, drift_gain = self._variance / total, self._covariance / total
        self.offset_s += gain * surprise_s
        self.drift += drift_gain * surprise_s
        self._drift_variance -= drift_gain * self._covariance
        self._covariance *= 1 - gain
        self._variance *= 1 - gain
        return 0.0

    def corrected(self, by_s: float) -> None:
        """Say that the sample count was put forward by `by_s`."""
        self.offset_s -= by_s
