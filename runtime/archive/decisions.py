"""Archived seconds → decisions, as a `Localizer` makes them: the same rules, without a head (docs/archive.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.layout import ContextSecond
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.rules.registry import RULES
from ovavel.runtime.types import Segment, SegmentScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Decisions", "check_each_second"]


def check_each_second(rule: Rule) -> None:
    """Refuse a rule that decides on a second by more than its own similarities.

    Raises:
        UsageError: it looks at the buffer around it, which the archive does not keep.
    """
    if RULES[rule.kind].looks_around:
        alone = ", ".join(kind for kind, info in RULES.items() if not info.looks_around and not info.not_live)
        raise UsageError(
            f"the decision rule {rule.kind} decides by all ten seconds that the head saw together, and an archive "
            f"keeps one at a time: choose another --fusion ({alone}), or localize the recordings themselves"
        )


class Decisions:
    """Decides on archived seconds, each by itself."""

    def __init__(self, vocabulary: Vocabulary, rule: Rule, calibration: Calibration | None = None) -> None:
        """Decide between the names of `vocabulary` by `rule`.

        Raises:
            UsageError: the rule looks at more than one second.
        """
        check_each_second(rule)
        self._localizer = Localizer(_products, vocabulary, buffer=1, lag=0, calibration=calibration, rule=rule)

    def of(self, seconds: Iterable[ContextSecond]) -> list[SegmentScores]:
        """Decide on `seconds`; their index and start are Unix time."""
        return self._localizer.score(
            [
                Segment(index=each.utc_s, start_s=float(each.utc_s), vision=each.vision, audio=each.audio)
                for each in seconds
            ]
        )


def _products(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
    """What is left of a head once its blocks have run."""
    similarity = audio @ text.audio.T, vision @ text.vision.T
    return HeadOutput(*similarity, fused_score(*similarity))
