"""How many cameras one encoder holds, from what each second takes: a simulation in the manner of the service.

Cameras take plain turns. The service's own queue also makes a camera wait whose turn took more work than others'; it is
not used here, as it holds real windows and the measurements know nothing of the service.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import default_rng

__all__ = ["DEADLINE_S", "Outcome", "held", "on_time", "simulate"]

DEADLINE_S = 1.0
_IN_TIME = 0.99
_SEEDS = range(5)
_LEAST_S = 600


class Outcome(NamedTuple):
    """What became of the windows of some cameras."""

    windows: int
    dropped: int
    late: int
    """Decided after the deadline."""

    @property
    def missed(self) -> float:
        """Share of windows that were dropped or late."""
        return (self.dropped + self.late) / self.windows


def simulate(costs_s: Sequence[float], cameras: int, room: int, *, seed: int = 0) -> Outcome:
    """Let `cameras` cameras send a window a second each to one worker.

    Each plays the same stream, whose seconds take `costs_s`, over and over, from a place and a moment of its own that
    `seed` draws. Cameras with windows that wait take turns. Up to `room` windows of a camera wait; one more drops the
    oldest. It lasts until each camera has played the whole stream, ten minutes at least.
    """
    draw = default_rng(seed)
    length, seconds = len(costs_s), max(len(costs_s), _LEAST_S)
    phases, places = draw.random(cameras).tolist(), draw.integers(length, size=cameras).tolist()
    arrivals = sorted(
        (phases[camera] + second, camera, second) for camera in range(cameras) for second in range(seconds)
    )
    lines: list[deque[tuple[float, int]]] = [deque() for _ in range(cameras)]
    ready: deque[int] = deque()
    now_s, arrived, dropped, late = 0.0, 0, 0, 0
    while arrived < len(arrivals) or ready:
        if not ready:
            now_s = max(now_s, arrivals[arrived][0])
        while arrived < len(arrivals) and arrivals[arrived][0] <= now_s:
            time_s, camera, second = arrivals[arrived]
            arrived += 1
            if not lines[camera]:
                ready.append(camera)
            lines[camera].append((time_s, second))
            if len(lines[camera]) > room:
                lines[camera].popleft()
                dropped += 1
        camera = ready.popleft()
        time_s, second = lines[camera].popleft()
        if lines[camera]:
            ready.append(camera)
        now_s += costs_s[(places[camera] + second) % length]
        late += now_s - time_s > DEADLINE_S
    return Outcome(len(arrivals), dropped, late)


def held(costs_s: Sequence[float], room: int) -> int:
    """The largest number of cameras of which no window is dropped, whatever place of five each begins at."""
    return _largest(costs_s, room, lambda outcome: not outcome.dropped)


def on_time(costs_s: Sequence[float], room: int) -> int:
    """The largest number of cameras with 99 % of the windows decided within a second, and none dropped."""
    return _largest(costs_s, room, lambda outcome: not outcome.dropped and outcome.missed <= 1 - _IN_TIME)


def _largest(costs_s: Sequence[float], room: int, passes: Callable[[Outcome], bool]) -> int:
    """The largest number that passes, supposing that all below it do; none for which the worker has no time."""
    low, high = 0, int(1 / float(np.mean(costs_s))) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if all(passes(simulate(costs_s, middle, room, seed=seed)) for seed in _SEEDS):
            low = middle
        else:
            high = middle
    return low
