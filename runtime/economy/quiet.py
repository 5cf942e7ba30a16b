"""Seconds in which a microphone hears nothing but its own noise (docs/economy.md, Nothing to hear).

Shapes: n samples of a second, B bands.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
from numpy import fft
from numpy.typing import NDArray

__all__ = ["BANDS", "LEAST_LEARNT", "NoiseFloor", "band_levels"]

BANDS = 24
LEAST_LEARNT = 120
"""Seconds of background before anything is taken for noise."""
_LEARNT = 600
_FLOOR, _USUAL = 0.1, 0.5
"""Quantiles of a band's levels: its floor, and what it usually is."""
_SPREADS, _LEAST_DB, _MOST_DB = 3.0, 0.3, 3.0
"""A band of noise may be above its floor by so many times what lies between both, with a limit in dB."""
_LOWEST_HZ = 60.0
_SILENCE = 1e-12


def band_levels(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, n) one second of sound → (B,) power of the first channel in bands of equal ratio, in dB."""
    power = np.abs(fft.rfft(waveform[0])) ** 2 / waveform.shape[1] ** 2
    levels: NDArray[np.float32] = 10 * np.log10(np.add.reduceat(power, _edges(waveform.shape[1])) + _SILENCE)
    return levels.astype(np.float32)


@lru_cache(maxsize=4)
def _edges(samples: int) -> NDArray[np.intp]:
    """First bin of each band; of a second, a bin is 1 Hz wide."""
    return np.geomspace(_LOWEST_HZ, samples // 2, BANDS + 1)[:-1].astype(np.intp)


class NoiseFloor:
    """Follows how loud each band of a microphone is in seconds that were decided to be background."""

    def __init__(self) -> None:
        self._levels: deque[NDArray[np.float32]] = deque(maxlen=_LEARNT)
        self._trust = 1.0

    def is_quiet(self, levels: NDArray[np.float32]) -> bool:
        """Whether no band of a second (B,) stands out of the noise; False as long as too little is known."""
        if len(self._levels) < LEAST_LEARNT:
            return False
        floor, usual = np.quantile(np.stack(self._levels), (_FLOOR, _USUAL), axis=0)
        chance = np.minimum(_SPREADS * (usual - floor) + _LEAST_DB, _MOST_DB)
        return bool((levels <= floor + self._trust * chance).all())

    def learn(self, levels: NDArray[np.float32]) -> None:
        """Take a second of background. An event never becomes noise, however long it lasts."""
        self._levels.append(levels)

    def distrust(self) -> None:
        """A second that was taken for noise was an event: count half as much as chance."""
        self._trust /= 2
