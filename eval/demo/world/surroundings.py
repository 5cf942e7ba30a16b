"""What changes around a fixed camera in a day though nothing happens: light, wind, rain, exposure, where it points.

Everything is a function of the seed and of media time, so that any second can be made by itself.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator, default_rng

from ovavel.eval.demo.world.plan import DAY_KINDS, HOUR_S, DayKind

__all__ = ["MARGIN_PX", "Surroundings"]

MARGIN_PX = (64, 32)
"""How far the camera turns to the right and down at most, in pixels of its picture."""

_DAY_S = 24 * HOUR_S
_PRESETS = 4
_PAN_S = 2.0
_ADAPT_S = 0.4
_WAVES = 5


class _Slow:
    """A smooth random function of time with values around 0: waves of random periods between two bounds."""

    def __init__(self, random: Generator, shortest_s: float, longest_s: float) -> None:
        periods = np.exp(random.uniform(math.log(shortest_s), math.log(longest_s), _WAVES))
        self._waves = [
            (2 * math.pi / p, float(x)) for p, x in zip(periods, random.uniform(0, 6.3, _WAVES), strict=True)
        ]

    def at(self, time_s: float) -> float:
        """Its value, nearly always in [-1, 1]."""
        return sum(math.sin(rate * time_s + phase) for rate, phase in self._waves) / math.sqrt(2 * _WAVES)


class Surroundings:
    """The weather and the camera's own doings of one day."""

    def __init__(self, day: DayKind, seed: int, hours: int) -> None:
        conditions = DAY_KINDS[day]
        random = default_rng((seed, 1))
        self._clouds, self._gusts, self._breeze, self._cars, self._showers = (
            _Slow(random, *periods) for periods in ((240, 1800), (7, 40), (300, 2400), (40, 200), (900, 5400))
        )
        self._wind = conditions.wind
        self._flicker = random.uniform(0.002, 0.01)
        self._presets = [(random.uniform(0, MARGIN_PX[0]), random.uniform(0, MARGIN_PX[1])) for _ in range(_PRESETS)]
        self._exposures = [(-math.inf, 1.0), *self._steps(seed, 2, hours, conditions.exposures)]
        self._moves = [(-math.inf, 0), *self._turns(seed, 3, hours, conditions.moves)]

    @staticmethod
    def _steps(seed: int, part: int, hours: int, count: int) -> Iterator[tuple[float, float]]:
        for hour in range(hours):
            random = default_rng((seed, part, hour))
            yield from (
                (hour * HOUR_S + float(t), random.uniform(0.9, 1.1)) for t in np.sort(random.uniform(0, HOUR_S, count))
            )

    @staticmethod
    def _turns(seed: int, part: int, hours: int, count: int) -> Iterator[tuple[float, int]]:
        for hour in range(hours):
            random = default_rng((seed, part, hour))
            yield from (
                (hour * HOUR_S + float(t), int(random.integers(_PRESETS)))
                for t in np.sort(random.uniform(0, HOUR_S, count))
            )

    def daylight(self, time_s: float) -> float:
        """Between 0 at night and 1 at noon; media time 0 is six in the morning."""
        return max(0.0, min(1.0, 0.5 + 0.9 * math.sin(2 * math.pi * time_s / _DAY_S)))

    def light(self, time_s: float) -> float:
        """Factor of the whole picture: time of day, clouds, lamps that flicker, and exposure."""
        cloudy = 1 + 0.06 * self._clouds.at(time_s)
        flicker = 1 + self._flicker * math.sin(2 * math.pi * 0.37 * time_s)
        number = bisect_right(self._exposures, time_s, key=lambda step: step[0]) - 1
        (start_s, level), before = self._exposures[number], self._exposures[max(0, number - 1)][1]
        exposure = level + (before - level) * math.exp(-(time_s - start_s) / _ADAPT_S)
        return (0.78 + 0.24 * self.daylight(time_s)) * cloudy * flicker * exposure

    def band(self, time_s: float) -> tuple[float, float]:
        """Amplitude and phase, in turns, of the bands of lamps on the mains that cross the picture."""
        return 0.4 * self._flicker, 0.29 * time_s % 1

    def noise(self, time_s: float) -> float:
        """Standard deviation of the sensor's noise in grey levels: more at night."""
        return 1.2 + 2.3 * (1 - self.daylight(time_s))

    def wind(self, time_s: float) -> float:
        """Strength in [0, 1]."""
        mean = self._wind * max(0.0, 1 + 1.2 * self._breeze.at(time_s))
        return min(1.0, mean * max(0.0, 0.6 + 0.6 * self._gusts.at(time_s)))

    def traffic(self, time_s: float) -> float:
        """Loudness of distant cars in [0, 1]."""
        return min(1.0, max(0.0, self._cars.at(time_s)) * (0.4 + 0.6 * self.daylight(time_s)))

    def rain(self, time_s: float) -> float:
        """Strength in [0, 1]; most of the time none."""
        return min(1.0, max(0.0, 1.5 * (self._showers.at(time_s) - 0.7)))

    def offset_px(self, time_s: float) -> tuple[float, float]:
        """Where the camera points: left and upper edge of its picture on the stage."""
        number = bisect_right(self._moves, time_s, key=lambda move: move[0]) - 1
        start_s, preset = self._moves[number]
        old, new = self._presets[self._moves[max(0, number - 1)][1]], self._presets[preset]
        done = 1.0 if math.isinf(start_s) else min(1.0, (time_s - start_s) / _PAN_S)
        return old[0] + done * (new[0] - old[0]), old[1] + done * (new[1] - old[1])
