"""The best seconds of a phrase → hits: stretches, and what the full vocabulary and the event rules make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.decisions import Decisions
from ovavel.runtime.archive.folders import DayGoneError
from ovavel.runtime.archive.layout import DAY_S, ContextSecond
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.archive.search.scan import Best
from ovavel.runtime.bundle.calibration import Calibration
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import BUFFER, Event, SegmentScores

if TYPE_CHECKING:
    from ovavel.runtime.bundle.text_embeddings import TextEmbeddings

__all__ = ["Hit", "Judge", "Stretch", "moments", "peaks", "stretches"]

_PAUSE = 2
"""Seconds that may lie between two of one stretch."""
_APART = 5
"""Seconds between two peaks, at least."""
_AROUND = BUFFER
"""Seconds before and after a stretch that the event rules see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Where a phrase fits."""

    phrase: str
    camera: str
    start_s: float
    """Unix time. From the first second that fits or is of the event to the last one."""
    end_s: float
    peak_s: float
    """Unix time of the second that fits best."""
    score: float
    """Its score (docs/archive.md, Ranking)."""
    seen: float | None
    """Similarity of what was seen in that second; None: nothing was seen."""
    heard: float | None
    event: bool
    """Whether live watching with this phrase among the names would have reported an event of it."""
    label: str
    """What that second would have been called then."""
    margin: float
    """Peak margin over the background; 0 without an event."""
    probability: float | None
    """Calibrated; None without an event, and where the bundle is not calibrated for these names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Seconds of one camera that belong together."""

    camera: str
    seconds: tuple[tuple[int, float], ...]
    """Unix time and score of each, in order of time."""

    @property
    def first_s(self) -> int:
        """Unix time."""
        return self.seconds[0][0]

    @property
    def end_s(self) -> int:
        """Unix time after the last second."""
        return self.seconds[-1][0] + 1

    @property
    def score(self) -> float:
        """The best one."""
        return max(score for _, score in self.seconds)


def stretches(days: Sequence[Day], best: Best) -> list[Stretch]:
    """Join seconds that are near each other, across midnight too; the best stretch first."""
    cameras = [days[day].camera for day in best.day]
    times = [days[day].start_s + int(row) for day, row in zip(best.day, best.row, strict=True)]
    joined: list[tuple[str, list[tuple[int, float]]]] = []
    for camera, time, score in sorted(zip(cameras, times, map(float, best.score), strict=True)):
        if not joined or joined[-1][0] != camera or time - joined[-1][1][-1][0] > _PAUSE:
            joined.append((camera, []))
        joined[-1][1].append((time, score))
    found = [Stretch(camera=camera, seconds=tuple(seconds)) for camera, seconds in joined]
    return sorted(found, key=lambda each: (-each.score, -each.first_s, each.camera))


def peaks(days: Sequence[Day], best: Best, beside: Sequence[Stretch] = ()) -> list[Stretch]:
    """Take the best seconds one by one, without those near a better one or near `beside`; the best first."""
    found: list[Stretch] = []
    taken: dict[str, list[tuple[int, int]]] = {}
    for stretch in beside:
        taken.setdefault(stretch.camera, []).append((stretch.first_s, stretch.end_s))
    for day, row, score in zip(best.day, best.row, map(float, best.score), strict=True):
        camera, time = days[day].camera, days[day].start_s + int(row)
        near = taken.setdefault(camera, [])
        if all(time < first_s - _APART or time >= end_s + _APART for first_s, end_s in near):
            near.append((time, time + 1))
            found.append(Stretch(camera=camera, seconds=((time, score),)))
    return found


def moments(days: Sequence[Day], best: Best) -> list[Stretch]:
    """Stretches of the seconds that a phrase fits better than the background, then peaks of the others."""
    fits = int((best.score > 0).sum())
    found = stretches(days, best[:fits])
    return [*found, *peaks(days, best[fits:], found)]


class Judge:
    """Runs stretches through the full vocabulary and the event rules."""

    def __init__(
        self,
        archive: Archive,
        model: str,
        decisions: Decisions,
        *,
        background: str,
        rules: EventRules | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Judge the seconds of the model `model`. `calibration` gives the margins that `rules` leave open."""
        self._archive, self._model, self._decisions = archive, model, decisions
        self._background, self._rules, self._calibration = background, rules, calibration

    def hits(self, stretch: Stretch, phrase: str, label: str, texts: TextEmbeddings) -> list[Hit]:
        """A hit for each event of `label` in `stretch`; without any, the stretch itself.

        Args:
            stretch: to judge.
            phrase: what was looked for.
            label: the same among the names.
            texts: the one row that it was ranked by.
        """
        near = self._seconds(stretch.camera, stretch.first_s - _AROUND, stretch.end_s + _AROUND)
        seconds = {each.utc_s: each for each in near}
        scores = {each.index: each for each in self._decisions.of(seconds.values())}
        found: list[tuple[float, float, list[tuple[int, float]], Event | None]] = [
            (event.start_s, event.end_s, inside, event)
            for event in self._events(list(scores.values()), label)
            if (inside := [each for each in stretch.seconds if event.start_s <= each[0] < event.end_s])
        ]
        if not found:
            found.append((float(stretch.first_s), float(stretch.end_s), list(stretch.seconds), None))
        hits = []
        for start_s, end_s, inside, of in found:
            peak_s, score = max(inside, key=lambda each: each[1])
            peak, named = seconds.get(peak_s), scores.get(peak_s)  # a day may be removed meanwhile
            hits.append(
                Hit(
                    phrase=phrase,
                    camera=stretch.camera,
                    start_s=start_s,
                    end_s=end_s,
                    peak_s=float(peak_s),
                    score=score,
                    seen=None if peak is None or peak.vision is None else float(texts.vision[0] @ peak.vision),
                    heard=None if peak is None or peak.audio is None else float(texts.audio[0] @ peak.audio),
                    event=of is not None,
                    label=named.label if named else self._background,
                    margin=of.peak_margin if of else 0.0,
                    probability=of.peak_probability if of else None,
                )
            )
        return hits

    def _events(self, scores: Sequence[SegmentScores], label: str) -> list[Event]:
        tracker = EventTracker(self._background, self._rules, calibration=self._calibration)
        news = [*tracker.push(scores), *tracker.close()]
        return [event for event in news if event.state == "end" and event.label == label]

    def _seconds(self, camera: str, first_s: int, last_s: int) -> Iterator[ContextSecond]:
        """The seconds from `first_s` to before `last_s`, in order."""
        days = self._archive.days([camera], model=self._model, from_s=first_s, to_s=last_s)
        for day in reversed(days):
            with suppress(DayGoneError), day.open() as files:
                rows = np.arange(max(0, first_s - day.start_s), min(DAY_S, last_s - day.start_s))
                if len(rows):
                    yield from files.seconds(int(rows[0]), int(rows[-1]) + 1)
