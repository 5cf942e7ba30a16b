"""What a row costs: parameters, seconds of training, and milliseconds for a window.

Shapes: T segments, D embedding size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head as RuntimeHead
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import BUFFER
from ovavel.training.fit.folder import TRUNK
from ovavel.training.fit.times import read_times

__all__ = ["one_window", "training_seconds", "window_times"]

_ROUNDS, _FEWEST, _WARM_UP = 40, 5, 3
_MOST_S = 60.0
"""After so long, rounds end once there are the fewest."""


def training_seconds(run: Path, epochs: int) -> float | None:
    """Return the seconds of training steps of a run with so many epochs, and of its trunk; None where unknown."""
    times = read_times(run)
    if len(times) != epochs:
        return None
    own = sum(each.training_s for each in times)
    trunk = run / TRUNK
    if not trunk.is_dir():
        return own
    below = sum(each.training_s for each in read_times(trunk))
    return own + below if below else None


def one_window(head: RuntimeHead, text: TextEmbeddings, seed: int = 0) -> Callable[[], object]:
    """Return a call that runs `head` on one window: random embeddings (1, T, D) of each sense, and all names."""
    random = default_rng(seed)

    def unit(size: int) -> NDArray[np.float32]:
        values = random.standard_normal((1, BUFFER, size), np.float32)
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
        return values

    audio, vision = (unit(size) for size in text.sizes)
    return lambda: head(audio, vision, text)


def window_times(calls: Mapping[str, Callable[[], object]], progress: Progress = no_progress) -> dict[str, float]:
    """Return the median milliseconds of each call. The calls take turns, so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    begun_s = time.perf_counter()
    for number in range(_WARM_UP + _ROUNDS):
        for name, call in calls.items():
            start_s = time.perf_counter()
            call()
            if number >= _WARM_UP:
                taken[name].append(1000 * (time.perf_counter() - start_s))
        progress("timing windows", number + 1, _WARM_UP + _ROUNDS)
        if number >= _WARM_UP + _FEWEST - 1 and time.perf_counter() - begun_s > _MOST_S:
            break
    return {name: statistics.median(each) for name, each in taken.items() if each}
