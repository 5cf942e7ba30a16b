"""Decisions → events: runs of seconds with one label, reported as they start, change and end.

Two layers. A *run* is what the rules make of a series of decisions; it is recomputed from the final decisions and the
provisional ones after them. A *reported* event is a run that has been announced; each push compares the two and reports
the difference. So a revised decision needs no special case: a reported event whose run is gone is retracted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.types import WINDOW_S, Event, EventState, SegmentScores

if TYPE_CHECKING:
    from ovavel.runtime.bundle.calibration import Calibration

__all__ = ["EventRules", "EventTracker"]


@dataclass(frozen=True, kw_only=True)
class EventRules:
    """When an event begins and ends.

    Without a calibration the defaults are the published decision: the best class, second by second.
    """

    start_margin: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Margin over the background, in [0, 1], that a second needs to begin an event. Not given, it is the bundle's own
    if that is calibrated, else 0."""
    keep_margin: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Margin that later seconds need to continue it; not above `start_margin`. Not given, it is the bundle's own if
    that is calibrated, else 0."""
    min_duration_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """Shorter events are not reported."""
    bridge_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """A pause up to this long inside an event does not end it."""

    def __post_init__(self) -> None:
        start, keep = self.start_margin, self.keep_margin
        _check_margins(1.0 if start is None else start, 0.0 if keep is None else keep, self)
        if not (0 <= self.min_duration_s < math.inf and 0 <= self.bridge_s < math.inf):
            raise UsageError(
                "durations must be finite and not negative; "
                f"got min-duration-s {self.min_duration_s}, bridge-s {self.bridge_s}"
            )

    def margins(self, calibration: Calibration | None = None) -> tuple[float, float]:
        """Margins to begin and to continue an event: those given, else those of `calibration`, else 0.

        Raises:
            UsageError: only one is given, and it does not go with the other.
        """
        start, keep = (calibration.on, calibration.off) if calibration else (0.0, 0.0)
        start = start if self.start_margin is None else self.start_margin
        keep = keep if self.keep_margin is None else self.keep_margin
        _check_margins(start, keep, self)
        return start, keep


def _check_margins(start: float, keep: float, rules: EventRules) -> None:
    if not 0 <= keep <= start <= 1:
        margins = {"start-margin": rules.start_margin, "keep-margin": rules.keep_margin}
        given = ", ".join(f"{name} {margin}" for name, margin in margins.items() if margin is not None)
        raise UsageError(
            f"event rules need 0 ≤ keep-margin ≤ start-margin ≤ 1; got start-margin {start}, keep-margin {keep} "
            f"(given: {given}); give both"
        )


class _Run(NamedTuple):
    """Seconds `first` to `last`, by segment index, of one label."""

    label: str
    first: int
    last: int
    score: float
    margin: float
    probability: float | None

    def and_then(self, s: SegmentScores) -> _Run:
        """Extend to the second `s`."""
        known = [p for p in (self.probability, s.probability) if p is not None]
        return self._replace(
            last=s.index,
            score=max(self.score, s.score),
            margin=max(self.margin, s.margin),
            probability=max(known, default=None),
        )

    def overlap(self, other: _Run) -> int:
        """Seconds in common; 0 where the two only touch, below 0 where they do not even touch."""
        return min(self.last, other.last) - max(self.first, other.first) + 1


class EventTracker:
    """Follows the events of one source. Pure: lifecycles count media time, never wall time."""

    def __init__(
        self,
        background: str,
        rules: EventRules | None = None,
        *,
        vocabulary_version: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        """Track every label but `background`; `calibration` gives the margins that `rules` leaves open."""
        self.vocabulary_version = vocabulary_version
        """Stamped on the events reported from now on. Set it when the vocabulary changes."""
        self._background = background
        rules = rules or EventRules()
        self._on, self._off = rules.margins(calibration)
        self._rules = replace(rules, start_margin=self._on, keep_margin=self._off)
        self._open: tuple[_Run, ...] = ()  # runs of final decisions that may still continue
        self._reported: dict[int, _Run] = {}
        self._next_id = 1

    @property
    def rules(self) -> EventRules:
        """Those in force, no margin left open."""
        return self._rules

    def push(self, scores: Sequence[SegmentScores]) -> list[Event]:
        """Take what `Localizer.push` or `flush` returned; return the news."""
        final = [s for s in scores if s.final]
        self._open, ended = self._follow(self._open, final)
        still_open, maybe_ended = self._follow(self._open, [s for s in scores if not s.final])
        return self._report(ended, [*maybe_ended, *still_open])

    def close(self) -> list[Event]:
        """End of the stream, however it came: end every reported event, as far as it was final.

        Push the result of `Localizer.flush` first, so that nothing provisional is left.
        """
        ended, self._open = self._open, ()
        return self._report(ended, [])

    def _follow(
        self, runs: Iterable[_Run], scores: Sequence[SegmentScores]
    ) -> tuple[tuple[_Run, ...], tuple[_Run, ...]]:
        """Continue `runs` through `scores`. Returns the runs that may continue and those that are over."""
        bridge = int(self._rules.bridge_s / WINDOW_S + 1e-9)
        alive = {run.label: run for run in runs}
        over: list[_Run] = []
        for s in scores:
            run = alive.get(s.label)
            if run and s.index - run.last > bridge + 1:  # seconds are missing in an archive: as if none had a name
                over.append(alive.pop(s.label))
                run = None
            if s.label == self._background or s.margin < (self._off if run else self._on):
                pass
            elif run:
                alive[s.label] = run.and_then(s)
            else:
                alive[s.label] = _Run(s.label, s.index, s.index, s.score, s.margin, s.probability)
            late = [label for label, run in alive.items() if s.index - run.last > bridge]
            over += [alive.pop(label) for label in late]
        return tuple(alive.values()), tuple(over)

    def _report(self, ended: Sequence[_Run], continuing: Sequence[_Run]) -> list[Event]:
        ended, continuing = ([run for run in runs if self._is_long_enough(run)] for runs in (ended, continuing))
        unreported = [*ended, *continuing]
        news: list[Event] = []
        for event_id, reported in list(self._reported.items()):
            same = [run for run in unreported if run.label == reported.label and run.overlap(reported) >= 0]
            if not same:
                news.append(self._event(event_id, reported, "retract"))
                del self._reported[event_id]
                continue
            run = max(same, key=reported.overlap)
            unreported.remove(run)
            news += self._news(event_id, reported, run, over=run in ended)
        for run in sorted(unreported, key=lambda run: (run.first, run.label)):
            event_id, self._next_id = self._next_id, self._next_id + 1
            news.append(self._event(event_id, run, "start"))
            news += self._news(event_id, run, run, over=run in ended)
        return news

    def _news(self, event_id: int, reported: _Run, run: _Run, *, over: bool) -> list[Event]:
        if over:
            self._reported.pop(event_id, None)
            return [self._event(event_id, run, "end")]
        self._reported[event_id] = run
        return [self._event(event_id, run, "update")] if run != reported else []

    def _is_long_enough(self, run: _Run) -> bool:
        return (run.last - run.first + 1) * WINDOW_S >= self._rules.min_duration_s

    def _event(self, event_id: int, run: _Run, state: EventState) -> Event:
        return Event(
            id=event_id,
            label=run.label,
            start_s=run.first * WINDOW_S,
            end_s=(run.last + 1) * WINDOW_S,
            peak_score=run.score,
            peak_margin=run.margin,
            state=state,
            vocabulary_version=self.vocabulary_version,
            peak_probability=run.probability,
        )
