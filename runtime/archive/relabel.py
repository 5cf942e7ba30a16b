"""Events as if another vocabulary, other margins or another rule had been in force, without encoding anything.

Shapes: N seconds, D embedding size of a sense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator, default_rng

from ovavel.runtime.archive.decisions import Decisions
from ovavel.runtime.archive.folders import DayGoneError
from ovavel.runtime.archive.layout import DAY_S, NO_AUDIO, NO_VISION, ContextSecond
from ovavel.runtime.archive.reader import Day, Vectors
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import Event, SegmentScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.calibration import Calibration, Rule
    from ovavel.runtime.bundle.vocabulary import Vocabulary

__all__ = ["Relabelled", "alike", "in_chunks", "relabelled", "seconds_of", "shaken", "vectors_of"]

_CHUNK = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabelled:
    """What became of the seconds of one day of one camera."""

    day: Day
    seconds: int
    """Seconds that were decided."""
    unsure: int
    """Those that rounding may have decided: with vectors that are off at random, by up to twice what rounding may have
    moved them, they are decided otherwise. All others are decided as in live watching."""
    events: tuple[Event, ...]
    """Those that ended in this day, in state "end"; times are Unix time. Events across midnight are one event."""


def relabelled(
    days: Sequence[Day],
    vocabulary: Vocabulary,
    rule: Rule,
    *,
    rules: EventRules | None = None,
    calibration: Calibration | None = None,
    margins: Calibration | None = None,
    from_s: int | None = None,
    to_s: int | None = None,
) -> Iterator[Relabelled]:
    """Decide on the seconds of `days` again, camera by camera, the oldest day first.

    Args:
        days: in any order, all of the model that `vocabulary` is of.
        vocabulary: the names.
        rule: that decides.
        rules: when an event begins and ends.
        calibration: of `rule`, for probabilities.
        margins: the calibration whose margins hold where `rules` leaves them open.
        from_s: Unix time of the first second.
        to_s: Unix time after the last second.

    Raises:
        UsageError: the rule looks at more than one second.
        InputError: a day cannot be read.
    """
    decisions, random = Decisions(vocabulary, rule, calibration), default_rng(0)
    for camera in sorted({day.camera for day in days}):
        tracker = EventTracker(vocabulary.background, rules, vocabulary_version=vocabulary.version, calibration=margins)
        mine = sorted((day for day in days if day.camera == camera), key=lambda day: day.start_s)
        for day in mine:
            events: list[Event] = []
            seconds = unsure = 0
            for found in vectors_of(day, from_s, to_s):
                scores = decisions.of(seconds_of(day, found))
                others = decisions.of(shaken(day, found, random))
                events += tracker.push(scores)
                seconds += len(scores)
                unsure += sum(not alike(a, b, tracker.rules) for a, b in zip(scores, others, strict=True))
            if day is mine[-1]:
                events += tracker.close()
            ended = tuple(event for event in events if event.state == "end")
            yield Relabelled(day=day, seconds=seconds, unsure=unsure, events=ended)


def vectors_of(day: Day, from_s: int | None, to_s: int | None) -> Iterator[Vectors]:
    """The seconds of `day` in the rows of `in_chunks`; none where the day was removed meanwhile."""
    with suppress(DayGoneError), day.open() as files:
        for rows in in_chunks(day, from_s, to_s):
            yield files.vectors(rows)


def in_chunks(day: Day, from_s: int | None, to_s: int | None) -> Iterator[NDArray[np.intp]]:
    """Rows of `day` from Unix time `from_s` to before `to_s`, so many at a time that little memory is needed."""
    first = 0 if from_s is None else min(DAY_S, max(0, from_s - day.start_s))
    last = DAY_S if to_s is None else min(DAY_S, max(0, to_s - day.start_s))
    for start in range(first, last, _CHUNK):
        yield np.arange(start, min(start + _CHUNK, last))


def shaken(day: Day, found: Vectors, random: Generator) -> Iterator[ContextSecond]:
    """The seconds of `found`, each component off at random by up to a whole step of the rounding."""
    vision, audio = found.of("vision"), found.of("audio")
    for vectors, scale in ((vision, found.scale[:, :1]), (audio, found.scale[:, 1:])):
        vectors += random.uniform(-1, 1, vectors.shape).astype(np.float32) * scale
    return _seconds(day, found, vision, audio)


def seconds_of(day: Day, found: Vectors) -> Iterator[ContextSecond]:
    """The seconds of `found`."""
    return _seconds(day, found, found.of("vision"), found.of("audio"))


def _seconds(
    day: Day, found: Vectors, vision: NDArray[np.float32], audio: NDArray[np.float32]
) -> Iterator[ContextSecond]:
    for at, (row, flag) in enumerate(zip(found.rows.tolist(), found.flags.tolist(), strict=True)):
        yield ContextSecond(
            utc_s=day.start_s + row,
            vision=None if flag & NO_VISION else vision[at],
            audio=None if flag & NO_AUDIO else audio[at],
        )


def alike(one: SegmentScores, other: SegmentScores, rules: EventRules) -> bool:
    """Whether both begin and continue the same events."""
    begins, continues = rules.start_margin or 0.0, rules.keep_margin or 0.0
    first, second = ((each.label, each.margin >= begins) if each.margin >= continues else None for each in (one, other))
    return first == second
