"""Seconds whose sound is too weak for anything that this camera has shown so far (docs/economy.md, Weak sound).

Shapes: T seconds, C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.sound import COSINES, is_background
from ovavel.runtime.types import SegmentScores

__all__ = ["LEAST_SEEN", "WeakSound"]

LEAST_SEEN = 120
"""Seconds that were looked at before anything is concluded from them."""
_MARGIN, _LEAST_MARGIN = 0.25, 0.02
"""What is added to the range of similarities seen so far: a share of it, and at least a cosine."""
_WIDEST = 16.0


class WeakSound:
    """Follows the similarities of what one camera shows, and knows which sounds they cannot make an event of."""

    def __init__(self, rule: Rule, names: Sequence[str]) -> None:
        """Decide by `rule` on `names`."""
        self._rule, self._names = rule, tuple(names)
        self._low = np.full(len(self._names), np.inf, np.float32)
        self._high = -self._low
        self._seen = 0
        self._wider = 1.0

    def settled(self, heard: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(T, C + K) similarities of sound → (T,) whether each is background with any picture like those so far."""
        if self._seen < LEAST_SEEN:
            return np.zeros(len(heard), np.bool_)
        margin = self._wider * np.maximum(_MARGIN * (self._high - self._low), _LEAST_MARGIN)
        further = np.ones(heard.shape[-1] - len(self._names), np.float32)  # nothing is known of these texts
        low = np.concatenate([np.maximum(self._low - margin, COSINES[0]), COSINES[0] * further])
        high = np.concatenate([np.minimum(self._high + margin, COSINES[1]), COSINES[1] * further])
        return is_background(self._rule, heard, self._names, low=low, high=high)

    def learn(self, scores: Sequence[SegmentScores]) -> None:
        """Take what was looked at."""
        for each in scores:
            if not each.missing and each.skipped is None:
                self._seen += each.final
                self._low = np.minimum(self._low, each.vision_similarity)
                self._high = np.maximum(self._high, each.vision_similarity)

    def distrust(self) -> None:
        """A second whose sound was taken for too weak was an event: assume less of pictures."""
        self._wider = min(2 * self._wider, _WIDEST)
