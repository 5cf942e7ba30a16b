"""Uncertainty of scores from the choice of clips: bootstrap intervals over clips.

Shapes: N clips, M measures.
"""

from __future__ import annotations

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

__all__ = ["LEVEL", "RESAMPLES", "SEED", "interval", "intervals"]

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
"""Seed of the draws, so that equal scores have equal intervals."""

Interval = tuple[tuple[float, ...], tuple[float, ...]]
"""Lower and upper ends, one for each of M measures."""


def interval(each: NDArray[np.float64]) -> Interval | None:
    """Return where the mean over clips lies in `LEVEL` of `RESAMPLES` draws of N clips with replacement.

    Args:
        each: (N, M) scores of each clip.

    Returns:
        The percentiles at both ends; None for fewer than two clips.
    """
    clips = len(each)
    if clips < 2:
        return None
    rng = default_rng(SEED)
    means = np.stack([each[rng.integers(clips, size=clips)].mean(axis=0) for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist()
    return tuple(low), tuple(high)


def intervals(each: NDArray[np.float64], seen: NDArray[np.bool_]) -> dict[str, Interval | None]:
    """Return the intervals of the seen, the unseen and all clips.

    Args:
        each: (N, M) scores of each clip.
        seen: (N,) whether the clip is of a seen class.
    """
    return {"seen": interval(each[seen]), "unseen": interval(each[~seen]), "total": interval(each)}
