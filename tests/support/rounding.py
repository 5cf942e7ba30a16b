"""How far a correct program may be from the exact answer, where the inputs decide it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDING = 2.0**-24
"""Largest relative error of one float32 operation."""
EPSILON = 1e-8
"""Of min-max scaling."""


def exact_fusion(audio: NDArray[np.float32], vision: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Fused scores (..., C) in float64, and how far those of a program that computes in float32 may be from them.

    A root p carries the error of its product (half of it, one rounding) and its own, at most one unit in the last
    place, which is two roundings: 2.5 in all, relative to p. So p - low and high - low are off by up to 5 of the
    largest p, and by one more, relative to themselves, for the subtraction; the denominator has the addition of epsilon
    besides, and the quotient one of its own. The score being at most 1, both errors add up to 10 high / (high - low +
    epsilon) + 4. No fixed number replaces that bound: scores of classes that hardly differ are ill-conditioned.
    """
    product = audio.astype(np.float64) * vision.astype(np.float64)
    p = np.sqrt(np.maximum(product, 0))
    low, high = p.min(axis=-1, keepdims=True), p.max(axis=-1, keepdims=True)
    spread = high - low + EPSILON
    # Products below the normal numbers lose digits: the root of the smallest one is what they may lose.
    lost = np.sqrt(float(np.finfo(np.float32).tiny))
    bound = (ROUNDING * 10 * high + 4 * lost) / spread + 4 * ROUNDING
    return (p - low) / spread, np.broadcast_to(bound, p.shape)
