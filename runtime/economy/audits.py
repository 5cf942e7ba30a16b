"""Seconds that are looked at although economy would decide them by sound alone: one in so many."""

from __future__ import annotations

from collections.abc import Sequence

from ovavel.runtime.types import SegmentScores

__all__ = ["AUDIT_EVERY", "SoundAudits"]

AUDIT_EVERY = 20


class SoundAudits:
    """Chooses the seconds to audit, once each, and reports what became of them."""

    def __init__(self) -> None:
        self._newest, self._count = -1, 0
        self._chosen: set[int] = set()

    def chooses(self, index: int, *, skips: bool) -> bool:
        """Whether the second `index` is to be looked at all the same.

        `skips`: whether it would be skipped by what is assumed; what a second is first asked with counts.
        """
        if index > self._newest:
            self._newest = index
            self._count += skips
            if skips and self._count % AUDIT_EVERY == 0:
                self._chosen.add(index)
        return index in self._chosen

    def over(self, scores: Sequence[SegmentScores], background: str) -> list[bool]:
        """For each audit whose second is final now, whether it was background indeed."""
        found = []
        for each in scores:
            if each.final and each.index in self._chosen:
                self._chosen.remove(each.index)
                if not each.missing and each.skipped is None:
                    found.append(each.label == background)
        return found
