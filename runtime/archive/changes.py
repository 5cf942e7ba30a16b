"""What other settings would have changed: the events of one camera under two settings, the newest day first.

Both are decided on the same archived seconds, so that a difference is due to the settings alone. Nothing is encoded.
Shapes: N seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.random import default_rng

from ovavel.runtime.archive.decisions import Decisions
from ovavel.runtime.archive.reader import Day
from ovavel.runtime.archive.relabel import alike, seconds_of, shaken, vectors_of
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import WINDOW_S, Event, SegmentScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.calibration import Rule

__all__ = ["DayChanges", "Difference", "Kind", "Setting", "Timeline", "changes", "differences", "settled_from"]

Kind = Literal["kept", "changed", "new", "gone"]
_CHUNK = 600
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What decides, and when an event begins and ends."""

    rule: Rule
    rules: EventRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An event under one setting or under both; times are Unix time."""

    kind: Kind
    """"changed": it begins or ends at another time."""
    label: str
    start_s: float
    """Under the second setting; of an event that is gone, under the first."""
    end_s: float
    margin: float
    """The highest of its seconds."""
    probability: float | None
    before_start_s: float | None
    """Under the first setting; None where it is new."""
    before_end_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayChanges:
    """What became of one more day. Together the stretches cover the whole span, each second once."""

    day: Day
    seconds: int
    """Seconds of the day that were decided."""
    unsure: int
    """Those that rounding may have decided under the second setting, as `Relabelled.unsure` counts them."""
    from_s: int
    """Unix time from which all events are known by now: those that reach into this day begin before it."""
    to_s: int
    """Unix time from which they were known before."""
    differences: tuple[Difference, ...]
    """Those that begin in this stretch, oldest first."""


def changes(
    days: Sequence[Day], bundle: Bundle, before: Setting, after: Setting, *, from_s: int, to_s: int
) -> Iterator[DayChanges]:
    """Decide on `days` of one camera under both settings, the newest day first.

    The events are those of `relabelled` over the whole span, though later days are decided first: an event is reported
    once it is known where it begins.

    Args:
        days: in any order, all of the model of `bundle`.
        bundle: whose names and calibration hold.
        before: the first setting.
        after: the second one.
        from_s: Unix time of the first second.
        to_s: Unix time after the last second.

    Raises:
        UsageError: a rule looks at more than one second, or margins do not fit together.
        InputError: a day cannot be read.
    """
    first, second, random = _Side(bundle, before), _Side(bundle, after), default_rng(0)
    times, lines = np.zeros(0, np.int64), [Timeline.of([]), Timeline.of([])]
    newest_first = sorted(days, key=lambda day: -day.start_s)
    for number, day in enumerate(newest_first, 1):
        parts: list[list[Timeline]] = [[], []]
        found_times: list[int] = []
        unsure = 0
        for found in vectors_of(day, from_s, to_s):
            scores = second.decisions.of(seconds_of(day, found))
            others = second.decisions.of(shaken(day, found, random))
            unsure += sum(not alike(a, b, second.rules) for a, b in zip(scores, others, strict=True))
            own = scores if before.rule == after.rule else first.decisions.of(seconds_of(day, found))
            parts[0].append(Timeline.of(own))
            parts[1].append(Timeline.of(scores))
            found_times += [each.index for each in scores]
        times = np.concatenate([np.array(found_times, np.int64), times])
        lines = [Timeline.joined([*part, line]) for part, line in zip(parts, lines, strict=True)]
        oldest = number == len(newest_first)
        sides = [(first.rules, lines[0]), (second.rules, lines[1])]
        at = 0 if oldest else settled_from(times, sides, first.background, day.start_s)
        known_s = from_s if oldest else int(times[at]) if at < len(times) else to_s
        one, other = (side.events(times[at:], line[at:]) for side, line in ((first, lines[0]), (second, lines[1])))
        yield DayChanges(
            day=day,
            seconds=len(found_times),
            unsure=unsure,
            from_s=known_s,
            to_s=to_s,
            differences=tuple(differences(one, other)),
        )
        times, lines, to_s = times[:at], [line[:at] for line in lines], known_s


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Decisions on N seconds, without what only a reader of single seconds needs: 28 bytes each."""

    labels: NDArray[np.object_]
    """(N,) the names themselves, which are shared."""
    scores: NDArray[np.float64]
    background: NDArray[np.float32]
    """(N,) the score of the background."""
    probabilities: NDArray[np.float64]
    """(N,) NaN where there is none."""

    @classmethod
    def of(cls, scores: Sequence[SegmentScores]) -> Timeline:
        """Keep what matters of `scores`."""
        labels = np.empty(len(scores), object)
        labels[:] = [each.label for each in scores]
        return cls(
            labels,
            np.array([each.score for each in scores], np.float64),
            np.array([each.scores[-1] for each in scores], np.float32),
            np.array([math.nan if each.probability is None else each.probability for each in scores], np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Timeline]) -> Timeline:
        """One after the other."""
        columns = zip(*((each.labels, each.scores, each.background, each.probabilities) for each in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def __getitem__(self, part: slice) -> Timeline:
        return Timeline(self.labels[part], self.scores[part], self.background[part], self.probabilities[part])

    def decisions(self, times: NDArray[np.int64]) -> Iterator[SegmentScores]:
        """As they were, as far as a tracker looks at them; `times` (N,) are their index."""
        columns = (times.tolist(), self.labels, self.scores.tolist(), self.probabilities.tolist())
        for at, (time_s, label, score, probability) in enumerate(zip(*columns, strict=True)):
            yield SegmentScores(
                index=time_s,
                start_s=float(time_s),
                label=label,
                score=score,
                scores=self.background[at : at + 1],
                vision_similarity=_NOTHING,
                audio_similarity=_NOTHING,
                context=0,
                final=True,
                probability=None if math.isnan(probability) else probability,
            )


class _Side:
    """One setting."""

    def __init__(self, bundle: Bundle, setting: Setting) -> None:
        manifest, self._vocabulary = bundle.manifest, bundle.vocabulary
        self._given, self._margins = setting.rules, manifest.calibration
        self.background = bundle.vocabulary.background
        self.decisions = Decisions(bundle.vocabulary, setting.rule, manifest.calibration_for(setting.rule))
        self.rules = self._tracker().rules
        """No margin left open."""

    def _tracker(self) -> EventTracker:
        version = self._vocabulary.version
        return EventTracker(self.background, self._given, vocabulary_version=version, calibration=self._margins)

    def events(self, times: NDArray[np.int64], line: Timeline) -> list[Event]:
        """The events of seconds before which there was none."""
        tracker, found = self._tracker(), list[Event]()
        for start in range(0, len(times), _CHUNK):
            part = slice(start, start + _CHUNK)
            found += tracker.push(list(line[part].decisions(times[part])))
        found += tracker.close()
        return [each for each in found if each.state == "end"]


def settled_from(
    times: NDArray[np.int64], sides: Sequence[tuple[EventRules, Timeline]], background: str, begins_s: int
) -> int:
    """The first of `times` (N,) before which every event is over under all rules, whatever came before; N if none is.

    Args:
        times: Unix times, ascending.
        sides: the rules, no margin left open, and what was decided at these times.
        background: the label of no event.
        begins_s: Unix time from which on all seconds that there are, are among `times`.
    """
    settled = np.ones(len(times), bool)
    for rules, line in sides:
        margins = np.maximum(0.0, line.scores - line.background)
        continues = (line.labels != background) & (margins >= (rules.keep_margin or 0.0))
        # Nothing is known of the time before `begins_s`: its last second may have been one of an event.
        last = np.concatenate([[begins_s - 1], np.where(continues, times, begins_s - 1)])[:-1]
        settled &= times - np.maximum.accumulate(last) > int(rules.bridge_s / WINDOW_S + 1e-9) + 1
    return int(settled.argmax()) if settled.any() else len(times)


def differences(before: Sequence[Event], after: Sequence[Event]) -> list[Difference]:
    """Match events of one label that overlap, those that overlap most first; oldest first.

    Args:
        before: events under the first setting; those of one label do not overlap each other.
        after: likewise under the second one.
    """
    pairs = sorted(_overlaps(before, after), reverse=True)
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for _, one, other in pairs:
        if one not in taken and other not in partner:
            partner[other] = one
            taken.add(one)
    found = [_difference(before[partner[at]] if at in partner else None, each) for at, each in enumerate(after)]
    found += [_difference(each, None) for at, each in enumerate(before) if at not in taken]
    return sorted(found, key=lambda each: (each.start_s, each.label, each.kind))


def _overlaps(before: Sequence[Event], after: Sequence[Event]) -> Iterator[tuple[float, int, int]]:
    """Seconds in common and the places of both, for events of one label that have some."""
    for label in {each.label for each in before} & {each.label for each in after}:
        mine, theirs = (
            sorted((each.start_s, each.end_s, at) for at, each in enumerate(events) if each.label == label)
            for events in (before, after)
        )
        one = other = 0
        while one < len(mine) and other < len(theirs):
            (start, end, at), (start_2, end_2, at_2) = mine[one], theirs[other]
            if (common := min(end, end_2) - max(start, start_2)) > 0:
                yield common, at, at_2
            one, other = (one + 1, other) if end <= end_2 else (one, other + 1)


def _difference(before: Event | None, after: Event | None) -> Difference:
    shown = after or before
    assert shown is not None
    kind: Kind = "new" if before is None else "gone"
    if before and after:
        kind = "kept" if (before.start_s, before.end_s) == (after.start_s, after.end_s) else "changed"
    return Difference(
        kind=kind,
        label=shown.label,
        start_s=shown.start_s,
        end_s=shown.end_s,
        margin=shown.peak_margin,
        probability=shown.peak_probability,
        before_start_s=before.start_s if before else None,
        before_end_s=before.end_s if before else None,
    )
