"""Events as if another vocabulary, other margins or another rule had been in force, without encoding anything.

Shapes: N seconds, D embedding size of a sense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.decisions import Decisions
from ovavel.runtime.archive.layout import DAY_S, NO_AUDIO, NO_VISION, ContextSecond
from ovavel.runtime.archive.reader import Day, Vectors
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import Event, SegmentScores

if TYPE_CHECKING:
    from ovavel.runtime.bundle.calibration import Calibration, Rule
    from ovavel.runtime.bundle.vocabulary import Vocabulary

__all__ = ["Relabelled", "relabelled"]

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
    decisions, random = Decisions(vocabulary, rule, calibration), np.random.default_rng(0)
    for camera in sorted({day.camera for day in days}):
        tracker = EventTracker(vocabulary.background, rules, vocabulary_version=vocabulary.version, calibration=margins)
        mine = sorted((day for day in days if day.camera == camera), key=lambda day: day.start_s)
        for day in mine:
            events: list[Event] = []
            seconds = unsure = 0
            with day.open() as files:
                first = 0 if from_s is None else min(DAY_S, max(0, from_s - day.start_s))
                last = DAY_S if to_s is None else min(DAY_S, max(0, to_s - day.start_s))
                for start in range(first, last, _CHUNK):
                    found = files.vectors(np.arange(start, min(start + _CHUNK, last)))
                    scores = decisions.of(_seconds(day, found, None))
                    others = decisions.of(_seconds(day, found, random))
                    events += tracker.push(scores)
                    seconds += len(scores)
                    unsure += sum(not _alike(a, b, tracker.rules) for a, b in zip(scores, others, strict=True))
            if day is mine[-1]:
                events += tracker.close()
            ended = tuple(event for event in events if event.state == "end")
            yield Relabelled(day=day, seconds=seconds, unsure=unsure, events=ended)


def _seconds(day: Day, found: Vectors, random: np.random.Generator | None) -> Iterator[ContextSecond]:
    """The seconds of `found`; with `random`, each component is off by up to a whole step of the rounding."""
    vision, audio = found.of("vision"), found.of("audio")
    if random is not None:
        for vectors, scale in ((vision, found.scale[:, :1]), (audio, found.scale[:, 1:])):
            vectors += random.uniform(-1, 1, vectors.shape).astype(np.float32) * scale
    for at, (row, flag) in enumerate(zip(found.rows.tolist(), found.flags.tolist(), strict=True)):
        yield ContextSecond(
            utc_s=day.start_s + row,
            vision=None if flag & NO_VISION else vision[at],
            audio=None if flag & NO_AUDIO else audio[at],
        )


def _alike(one: SegmentScores, other: SegmentScores, rules: EventRules) -> bool:
    """Whether both begin and continue the same events."""
    begins, continues = rules.start_margin or 0.0, rules.keep_margin or 0.0
    first, second = ((each.label, each.margin >= begins) if each.margin >= continues else None for each in (one, other))
    return first == second
