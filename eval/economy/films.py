"""Short videos of the days of the demo world, for people to see what is watched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovavel.eval.demo.world.day import Day
from ovavel.eval.demo.world.mp4 import FPS, write_mp4
from ovavel.eval.demo.world.plan import HOUR_S, DayKind

__all__ = ["write_films"]

_BEFORE_S = 5


def write_films(folder: Path, kinds: Sequence[DayKind], seeds: Sequence[int], seconds: int) -> None:
    """Write so many seconds of each day, from shortly before its first event, as `KIND-SEED.mp4`.

    Raises:
        OutputError: a file could not be written.
    """
    for kind in dict.fromkeys(kinds):
        for seed in seeds:
            day = Day(kind, seed, 2 * HOUR_S)
            first = max(0, int(day.events[0].start_s) - _BEFORE_S)
            pictures = (day.frame(first + (number + 0.5) / FPS) for number in range(seconds * FPS))
            sound = np.concatenate([day.sound(second) for second in range(first, first + seconds)])
            write_mp4(folder / f"{kind}-{seed}.mp4", pictures, sound)
