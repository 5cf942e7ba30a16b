"""Seconds whose sound is too weak for anything that this camera has shown so far (docs/economy.md, Weak sound).

Shapes: T seconds, C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.sound import COSINES, is_background
from ovavel.runtime.types import Segment, SegmentScores

__all__ = ["AUDIT_EVERY", "LEAST_SEEN", "WeakSound"]

AUDIT_EVERY = 20
"""One in so many seconds with a weak sound is looked at all the same."""
LEAST_SEEN = 120
"""Scores of seconds that were looked at before anything is concluded from them."""
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
        self._newest = -1
        self._weak = 0
        self._audits: set[int] = set()

    def settled(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(T,) whether each second is background with any picture like those so far; not for those to audit.

        `heard` is (T, C + K).
        """
        if self._seen < LEAST_SEEN:
            return np.zeros(len(segments), np.bool_)
        margin = self._wider * np.maximum(_MARGIN * (self._high - self._low), _LEAST_MARGIN)
        further = np.ones(heard.shape[-1] - len(self._names), np.float32)  # nothing is known of these texts
        low = np.concatenate([np.maximum(self._low - margin, COSINES[0]), COSINES[0] * further])
        high = np.concatenate([np.minimum(self._high + margin, COSINES[1]), COSINES[1] * further])
        weak = is_background(self._rule, heard, self._names, low=low, high=high)
        for segment, each in zip(segments, weak, strict=True):
            if segment.index > self._newest:
                self._newest = segment.index
                self._weak += bool(each)
                if each and self._weak % AUDIT_EVERY == 0:
                    self._audits.add(segment.index)
        settled: NDArray[np.bool_] = weak & [segment.index not in self._audits for segment in segments]
        return settled

    def learn(self, scores: Sequence[SegmentScores]) -> list[bool]:
        """Take decisions; return for each audit that is over whether its second was background indeed.

        One that was not widens what is assumed of pictures.
        """
        audits = []
        for each in scores:
            looked = not each.missing and each.skipped is None
            if looked:
                self._seen += 1
                self._low = np.minimum(self._low, each.vision_similarity)
                self._high = np.maximum(self._high, each.vision_similarity)
            if each.final and each.index in self._audits:
                self._audits.remove(each.index)
                if looked:
                    audits.append(each.label == self._names[-1])
        if not all(audits):
            self._wider = min(2 * self._wider, _WIDEST)
        return audits
