"""One camera: its segments become decisions, and these become rows of a transaction."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.runtime.session_info import new_id
from ovavel.runtime.types import WINDOW_S, DropCause, Event, GapCause, Segment, SegmentScores
from ovavel.service.store import assets
from ovavel.service.store.accounts import accounted_us, advance
from ovavel.service.store.cameras import Anchor, RunFacts, add_anchor, close_run, open_run
from ovavel.service.store.database import Transaction, one_row
from ovavel.service.store.events import EventNews, LogEntry, record
from ovavel.service.store.outbox import Subscriber
from ovavel.service.store.seconds import keep_seconds, keep_vocabulary
from ovavel.service.watch.economy.run import RunEconomy
from ovavel.service.watch.runs.wall_clock import WallClock
from ovavel.service.watch.runs.why import pack

if TYPE_CHECKING:
    from typing import Self

    from ovavel.service.evidence.keeper import RunEvidence

__all__ = ["CLOCK_STEP", "CameraWatch", "Moment", "Seen"]

CLOCK_STEP = "clock step"
"""Cause of the gap where the wall clock was set forward."""

_US = 1_000_000
MOST_UNWRITTEN = 900
"""Seconds that wait for a store that cannot be written, with all that is known of them. Of later ones that bring no
news only what became of them waits, so that a disk that is full for days does not fill the memory."""
_MOST_STRETCHES = 500
_RECENT = 30
"""Final seconds that are remembered: an event is reported some seconds after it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The clocks at the moment a window was complete."""

    utc_us: int
    monotonic_us: int

    @classmethod
    def now(cls) -> Self:
        """The present one."""
        return cls(utc_us=time.time_ns() // 1000, monotonic_us=time.monotonic_ns() // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one second, or the end of a run, brought, for those who show it."""

    scores: tuple[SegmentScores, ...]
    names: tuple[str, ...]
    """Of the classes that the scores are of, the background last."""
    notices: tuple[str, ...] = ()
    """What the economy has to report."""


class CameraWatch:
    """Decides on one run of one camera, and keeps what it decides until that is committed."""

    def __init__(
        self,
        localizer: Localizer,
        economy: RunEconomy,
        tracker: EventTracker,
        clock: WallClock,
        *,
        camera_id: str,
        run_id: str,
        sinks: Sequence[Subscriber],
        new_event_id: Callable[[], str] = new_id,
        evidence: RunEvidence | None = None,
    ) -> None:
        """Watch for the open run `run_id`, whose first anchor is that of `clock`.

        Many parameters: the parts that are the camera's own, and where what they say is kept.

        Args:
            localizer: scores segments; the camera's own.
            economy: what the localizer asks for pictures; the camera's own.
            tracker: makes events of scores; the camera's own.
            clock: with the anchor of the run's start.
            camera_id: of the store.
            run_id: of the store.
            sinks: those that may hear of events.
            new_event_id: makes ids that order by time.
            evidence: keeps what remains of its events; None: nothing.
        """
        self._evidence = evidence
        self._localizer, self._tracker, self._clock, self.economy = localizer, tracker, clock, economy
        self._names = localizer.vocabulary.names
        self._camera, self.run_id, self.sinks, self._new_id = camera_id, run_id, tuple(sinks), new_event_id
        self._decided_us = 0  # media time up to which seconds are final
        self._waiting: dict[int, GapCause | DropCause | None] = {}  # why each second that is not final was dropped
        self._unwritten: deque[_Unwritten] = deque()
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=_RECENT)  # final seconds, packed
        self._ended = False
        self.trouble = ""
        """Why the store could not be written last time; empty where it could."""

    def second(self, segment: Segment, now: Moment, *, dropped: GapCause | DropCause | None = None) -> Seen:
        """Take the next second. All that becomes final with it is to be committed, in one transaction.

        What cannot be committed, on a full disk, say, is committed with a later second.

        Args:
            segment: without embeddings where its window was dropped.
            now: the clocks when the window was complete.
            dropped: why its window never reached the encoder.
        """
        anchor = self._clock.observe(
            media_us=round((segment.start_s + WINDOW_S) * _US), utc_us=now.utc_us, monotonic_us=now.monotonic_us
        )
        self._waiting[segment.index] = dropped
        scores = self._scored(self._localizer.push(segment))
        self._keep(scores, self._tracker.push(scores), now.utc_us, anchor=anchor)
        return self.seen(scores)

    def needed(self, segment: Segment) -> list[Segment]:
        """Those whose pictures `second` will look at, of what waits and of `segment`."""
        return self._localizer.needed([segment])

    def _scored(self, scores: list[SegmentScores]) -> list[SegmentScores]:
        """What was decided, once all that belongs to it knows. Seconds whose pictures were lost meanwhile count so."""
        self.economy.decided(scores)
        for index in self.economy.lost() & self._waiting.keys():
            self._waiting[index] = self._waiting[index] or DropCause.BACKEND_FAILED
        if self._evidence:
            self._evidence.scored(scores)
        return scores

    @property
    def decided_us(self) -> int:
        """UTC up to which its seconds are final."""
        return self._clock.utc_us(self._decided_us)

    def rename(self, vocabulary: Vocabulary, tracker: EventTracker, run: RunFacts, cause: str, now: Moment) -> None:
        """Continue with other names, in a run of its own, for a run has one vocabulary.

        The old run ends at its last final second, and its open events with it. What is not final is decided on with
        the new names and all of its context, so no second is lost. It is to be committed.

        Args:
            vocabulary: to decide with.
            tracker: for its names; the camera's own.
            run: that begins, at `decided_us`.
            cause: why the run and its events end.
            now: the clocks.
        """
        anchors = self._clock.since(self._decided_us, cause)
        following = _Following(facts=run, names=vocabulary.names, anchors=anchors)
        self._keep((), self._tracker.close(), now.utc_us, cause=cause, following=following)
        self.run_id, self._names = run.id, vocabulary.names
        self._localizer.vocabulary, self._tracker = vocabulary, tracker
        self._recent.clear()  # packed with places in the old vocabulary

    def end(self, cause: str, now: Moment) -> Seen:
        """End the run: what waits becomes final, open events end. It is to be committed. Twice does nothing."""
        if self._ended:
            return self.seen()
        self._ended = True
        scores = self._scored(self._localizer.flush())
        events = [*self._tracker.push(scores), *self._tracker.close()]
        self._keep(scores, events, now.utc_us, cause=cause)
        return self.seen(scores)

    def seen(self, scores: Sequence[SegmentScores] = ()) -> Seen:
        """For those who show it: `scores`, and what there is to report since the last call."""
        return Seen(scores=tuple(scores), names=self._names, notices=self.economy.notices())

    @property
    def unwritten(self) -> bool:
        """Whether anything is to be committed."""
        return bool(self._unwritten)

    def write(self, transaction: Transaction) -> list[LogEntry]:
        """Write what is to be committed; `written` follows once it is."""
        return [entry for each in self._unwritten for entry in self._write(transaction, each)]

    def written(self, log: Sequence[LogEntry]) -> None:
        """What was written is committed, `log` with it."""
        news = [event for each in self._unwritten for event in each.events]
        self._unwritten.clear()
        self.trouble = ""
        for event, entry in zip(news, log, strict=True):
            if self._evidence and event.state == "end":
                self._evidence.over(entry.body.id, event.label, event.start_s, event.end_s)

    def _keep(
        self,
        scores: Sequence[SegmentScores],
        events: Sequence[Event],
        now_us: int,
        *,
        anchor: Anchor | None = None,
        cause: str | None = None,
        following: _Following | None = None,
    ) -> None:
        final = [each for each in scores if each.final]
        seconds = tuple(
            (*self._stretch(each.start_s, each.start_s + WINDOW_S), self._waiting.pop(each.index), 1) for each in final
        )
        why = [(second[0], pack(each, self._names)) for second, each in zip(seconds, final, strict=True)]
        self._recent.extend(why)
        if final:
            self._decided_us = round((final[-1].start_s + WINDOW_S) * _US)
        starts = any(event.state == "start" for event in events)
        self._unwritten.append(
            _Unwritten(
                run_id=self.run_id,
                now_us=now_us,
                anchor=anchor,
                seconds=seconds,
                why=tuple(why),
                before=tuple(self._recent) if starts else (),
                news=tuple(self._news(event, cause if event.state == "end" else None) for event in events),
                events=tuple(events),
                cause=cause,
                following=following,
            )
        )
        if len(self._unwritten) > MOST_UNWRITTEN and (joined := _joined(self._unwritten[-2], self._unwritten[-1])):
            self._unwritten.pop()
            self._unwritten[-1] = joined

    def _write(self, transaction: Transaction, each: _Unwritten) -> Iterator[LogEntry]:
        if each.anchor:
            add_anchor(transaction, each.run_id, each.anchor)
        for start_us, end_us, dropped, windows in each.seconds:
            if start_us > accounted_us(transaction, self._camera):
                advance(transaction, self._camera, to_us=start_us, outcome="gap", cause=CLOCK_STEP)
            if dropped is None:
                advance(transaction, self._camera, to_us=end_us, outcome="final", windows=windows)
            else:
                advance(transaction, self._camera, to_us=end_us, outcome="dropped", cause=dropped, windows=windows)
            transaction.execute(
                "UPDATE run SET committed_us = max(committed_us, ?) WHERE id = ?", (end_us, each.run_id)
            )
        keep_seconds(transaction, each.run_id, each.why)
        for news in each.news:
            event_id = self._new_id() if news.kind == "start" else ""
            entry = record(transaction, news, event_id=event_id, now_us=each.now_us, sinks=self.sinks)
            if self._evidence and news.kind == "end":
                assets.expect(transaction, entry.body.id, self._evidence.kinds)
            if news.kind == "start":
                keep_seconds(transaction, each.run_id, each.before, number=news.session_event_id)
            yield entry
        if each.cause is not None:
            (committed_us,) = one_row(transaction, "SELECT committed_us FROM run WHERE id = ?", (each.run_id,))
            close_run(transaction, each.run_id, ended_us=committed_us, cause=each.cause)
        if each.following:
            keep_vocabulary(transaction, each.following.facts.vocabulary_version, each.following.names)
            open_run(transaction, each.following.facts)
            for anchor in each.following.anchors:
                add_anchor(transaction, each.following.facts.id, anchor)

    def _news(self, event: Event, end_cause: str | None) -> EventNews:
        start_us, end_us = self._stretch(event.start_s, event.end_s)
        return EventNews(
            kind=event.state,
            run_id=self.run_id,
            session_event_id=event.id,
            label=event.label,
            start_us=start_us,
            end_us=max(start_us, end_us),
            peak_margin=event.peak_margin,
            peak_probability=event.peak_probability,
            end_cause=end_cause,
        )

    def _stretch(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Media time → UTC. The end belongs to what it ends: a clock that was set then has not moved it."""
        return self._clock.utc_us(round(start_s * _US)), self._clock.utc_us(round(end_s * _US) - 1) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Following:
    """The run that begins where another one ends."""

    facts: RunFacts
    names: tuple[str, ...]
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unwritten:
    """What one second brings to the store, or several that bring nothing but themselves."""

    run_id: str
    now_us: int
    anchor: Anchor | None
    seconds: tuple[tuple[int, int, GapCause | DropCause | None, int], ...]
    """Of each stretch that became final: its start, its end, why it was dropped, and its windows."""
    why: tuple[tuple[int, bytes], ...]
    """Of each second that became final: its start, and what speaks for the decision."""
    before: tuple[tuple[int, bytes], ...]
    """The same of the newest seconds, where an event starts."""
    news: tuple[EventNews, ...]
    events: tuple[Event, ...]
    """What `news` is about, in media time."""
    cause: str | None
    """Why the run ends; None while it continues."""
    following: _Following | None
    """The run that begins then, if the camera's watch continues."""


def _joined(before: _Unwritten, after: _Unwritten) -> _Unwritten | None:
    """Both as one, without what speaks for the decisions; None where one of them brings more than seconds."""
    plain = all(not (each.anchor or each.news or each.cause or each.following) for each in (before, after))
    if not plain or len(before.seconds) > _MOST_STRETCHES:
        return None
    seconds = list(before.seconds)
    for start_us, end_us, dropped, windows in after.seconds:
        if seconds and seconds[-1][1:3] == (start_us, dropped):
            first_us, _, _, others = seconds.pop()
            seconds.append((first_us, end_us, dropped, others + windows))
        else:
            seconds.append((start_us, end_us, dropped, windows))
    return replace(after, seconds=tuple(seconds), why=())
