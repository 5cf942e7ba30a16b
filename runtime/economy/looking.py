"""Which pictures of one source are encoded: what a session's economy does, second by second.

Shapes: T seconds, C classes with the background last, K further texts of the background, D embedding size of vision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.economy.sound import hears_alone, is_background, why_never, why_not_exact
from ovavel.runtime.pipeline.localizer import Head
from ovavel.runtime.types import Segment, SegmentScores, SkipCause

__all__ = ["EconomicVision", "plan_economy"]

Look = Callable[[Sequence[NDArray[np.float32]]], Sequence[NDArray[np.float32]]]
"""Prepared pictures → (D,) embeddings, `Encoder.look`."""


def plan_economy(economy: Economy, rule: Rule, head: Head, text: TextEmbeddings) -> EconomyPlan:
    """Return what of `economy` a session can run whose `head` decides by `rule` on names with the texts `text`."""
    if economy.mode == "off":
        return EconomyPlan()
    auto = economy.mode == "auto"
    why_not = why_never(rule) if auto else why_not_exact(rule)
    if economy.every_picture:
        why_not = f"{economy.every_picture} needs every picture"
    elif not why_not and not hears_alone(head, text):
        why_not = "what the head of this bundle makes of sound depends on what it sees"
    return EconomyPlan(
        asked=economy.mode,
        mode="off" if why_not and not auto else economy.mode,
        sound=not why_not,
        still=auto,
        budget=economy.budget,
        why_not=why_not,
    )


class EconomicVision:
    """Encodes the pictures of one source that are needed. Pure but for the encoder: the same segments, the same work.

    A `Localizer` asks it (`Looking`) before it decides.
    """

    def __init__(self, look: Look, plan: EconomyPlan, rule: Rule, names: Sequence[str], counts: EconomyCounts) -> None:
        """Encode with `look` what `plan` leaves to encode, for decisions by `rule` on `names`, and count."""
        self._look, self._plan, self._rule, self._names, self._counts = look, plan, rule, tuple(names), counts

    def arrived(self, segment: Segment) -> Segment:
        """Take a second before it is decided: look at once where sound does not decide alone."""
        if self._plan.mode == "off":
            return segment
        self._counts.second(picture=segment.frame is not None, sound=segment.audio is not None)
        return segment if self._plan.sound else self.look([segment])[0]

    def causes(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> list[SkipCause | None]:
        """See `Looking`."""
        settled = is_background(self._rule, heard, self._names)
        return [SkipCause.SOUND if each else None for each in settled]

    def look(self, segments: Sequence[Segment]) -> list[Segment]:
        """See `Looking`."""
        waiting = [s.frame for s in segments if s.frame is not None]
        if not waiting:
            return list(segments)
        embeddings = iter(self._look(waiting))
        self._counts.looked(encoded=len(waiting))
        return [s if s.frame is None else replace(s, vision=next(embeddings), frame=None) for s in segments]

    def decided(self, scores: Sequence[SegmentScores]) -> None:
        """Take what was decided: count what is final without its picture."""
        for each in scores:
            if each.final and each.skipped:
                self._counts.skipped(each.skipped)
