"""Which pictures of one source are encoded: what a session's economy does, second by second.

Shapes: T seconds, C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.settings import EconomyPlan
from ovavel.runtime.economy.sound import is_background
from ovavel.runtime.economy.still import Look, StillPictures
from ovavel.runtime.economy.weak import WeakSound
from ovavel.runtime.types import Notice, Segment, SegmentScores, SkipCause

__all__ = ["EconomicVision"]

_QUIET_S = 600.0
"""Media time between two notices of the same kind."""


class EconomicVision:
    """Encodes the pictures of one source that are needed. The same segments always give the same work.

    A `Localizer` asks it (`Looking`) before it decides.
    """

    def __init__(self, look: Look, plan: EconomyPlan, rule: Rule, names: Sequence[str], counts: EconomyCounts) -> None:
        """Encode with `look` what `plan` leaves to encode, for decisions by `rule` on `names`, and count."""
        self._look, self._plan, self._rule, self._names, self._counts = look, plan, rule, tuple(names), counts
        self._still = StillPictures(look, plan.budget) if plan.still else None
        self._weak = WeakSound(rule, names) if plan.still and plan.sound else None
        self._notices: list[Notice] = []
        self._reported_s: dict[str, float] = {}

    def arrived(self, segment: Segment) -> Segment:
        """Take a second before it is decided: look at once where sound does not decide alone."""
        if self._plan.mode == "off":
            return segment
        self._counts.second(picture=segment.frame is not None, sound=segment.audio is not None)
        return segment if self._plan.sound else self.look([segment])[0]

    def causes(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> list[SkipCause | None]:
        """See `Looking`."""
        sound = is_background(self._rule, heard, self._names)
        weak = np.zeros_like(sound) if self._weak is None else self._weak.settled(segments, heard)
        return [
            SkipCause.SOUND if by_sound else SkipCause.WEAK_SOUND if by_weakness else None
            for by_sound, by_weakness in zip(sound, weak, strict=True)
        ]

    def look(self, segments: Sequence[Segment]) -> list[Segment]:
        """See `Looking`."""
        waiting = [s for s in segments if s.frame is not None]
        if not waiting:
            return list(segments)
        frames = [s.frame for s in waiting if s.frame is not None]
        if self._still is None:
            embeddings = list(self._look(frames))
            self._counts.looked(encoded=len(embeddings))
        else:
            found = self._still.embed(frames)
            embeddings = [each.embedding for each in found]
            encoded = sum(each.encoded for each in found)
            self._counts.looked(encoded=encoded, reused=len(found) - encoded)
            for segment, each in zip(waiting, found, strict=True):
                if each.drift is not None:
                    self._counts.audited(each.drift, failed=not each.within)
                if each.drift is not None and not each.within:
                    self._report(segment.start_s, "drift", _DRIFTED.format(each.drift, self._plan.budget))
        by_index = {s.index: embedding for s, embedding in zip(waiting, embeddings, strict=True)}
        return [s if s.frame is None else replace(s, vision=by_index[s.index], frame=None) for s in segments]

    def decided(self, scores: Sequence[SegmentScores]) -> None:
        """Take what was decided: learn from it, and count what is final without its picture."""
        for each in scores:
            if each.final and each.skipped:
                self._counts.skipped(each.skipped)
        for background in self._weak.learn(scores) if self._weak else ():
            self._counts.audited(None, failed=not background)
            if not background:
                self._report(scores[-1].start_s, "weak", _WAS_EVENT)

    def notices(self) -> tuple[Notice, ...]:
        """What there is to report since the last call."""
        news, self._notices = tuple(self._notices), []
        return news

    def _report(self, time_s: float, kind: str, message: str) -> None:
        if time_s - self._reported_s.get(kind, -_QUIET_S) >= _QUIET_S:
            self._reported_s[kind] = time_s
            self._notices.append(Notice(time_s=time_s, message=message))


_DRIFTED = (
    "economy: a picture that was taken for unchanged drifted by {:.4f}, and the budget is {:g}; pictures must be more "
    "alike now to keep an embedding"
)
_WAS_EVENT = "economy: a second whose sound was taken for too weak is an event; fewer seconds are decided by sound now"
