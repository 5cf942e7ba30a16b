"""Windows that are dropped or hold nothing: each is counted by its cause."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from support.runtime.scripted import Clock, InStep, Scripted, Slow, assert_every_start_ends, final_scores

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.lines import summary_lines
from ovavel.runtime.types import (
    Chunk,
    Event,
    Frame,
    Gap,
    GapCause,
    Samples,
    Sense,
)


def test_a_slow_encoder_drops_the_oldest_windows_and_counts_each(
    bundle: Bundle, backend: Backend, clock: Clock
) -> None:
    source = Scripted(30, live=True)
    turns = InStep(source, 10)

    def encode() -> None:
        clock.advance(0.1)
        turns.picture()

    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        updates = list(session.updates())
    scores = final_scores(updates)
    assert [s.index for s in scores] == list(range(30))
    lost = [u.window.index for u in updates if u.window and u.window.dropped is GapCause.ENCODER_TOO_SLOW]
    assert all(u.window.gaps[0].cause is u.window.dropped for u in updates if u.window and u.window.gaps)
    assert len(lost) == session.stats.dropped[GapCause.ENCODER_TOO_SLOW] > 5
    assert session.stats.windows + len(lost) == 30
    assert session.stats.real_time_factor == pytest.approx(0.1), "those dropped make it look no faster"
    assert session.stats.gap_s[GapCause.ENCODER_TOO_SLOW] == pytest.approx(2 * len(lost))  # both senses of each
    assert {s.index for s in scores if s.missing} == set(lost)
    assert 29 not in lost
    assert all((u.latency_ms is None) == (u.window is None or u.window.index in lost) for u in updates)


def test_a_paused_reader_is_not_counted_as_a_slow_encoder(bundle: Bundle, backend: Backend, clock: Clock) -> None:
    source, paused, over = Scripted(60, live=True), threading.Event(), threading.Event()

    def hand_out(second: int) -> None:
        clock.advance(0.01)
        if second == 8:
            assert paused.wait(60)
        if second == 59:
            over.set()

    source.on_second = hand_out
    with Session(bundle, source, backend=backend) as session:
        reported = []
        for update in session.updates():
            reported.append(update)
            if len(reported) == 3:
                paused.set()
                assert over.wait(60)  # the session runs on while nobody takes its updates
    assert set(session.stats.dropped) <= {GapCause.READER_TOO_SLOW, GapCause.ENCODER_TOO_SLOW}
    assert session.stats.dropped[GapCause.READER_TOO_SLOW] > 40
    causes = [gap.cause for update in reported if update.window for gap in update.window.gaps]
    assert causes.count(GapCause.READER_TOO_SLOW) == 2 * session.stats.dropped[GapCause.READER_TOO_SLOW]


class Lost(Scripted):
    """A live source that brings nothing but gaps for a while."""

    def __init__(self, *, lost: range) -> None:
        super().__init__(8, live=True)
        self._lost = lost

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            second = int(chunk.start_s if isinstance(chunk, Gap) else chunk.time_s)
            if second in self._lost:
                sense: Sense = "vision" if isinstance(chunk, Frame) else "audio"
                yield Gap(sense=sense, cause="camera lost", start_s=float(second), duration_s=1.0)
            else:
                yield chunk


@pytest.mark.parametrize("lost", [range(3), range(2, 5), range(8)])
def test_seconds_that_hold_nothing_have_no_latency(bundle: Bundle, backend: Backend, lost: range) -> None:
    with Session(bundle, Lost(lost=lost), backend=backend) as session:
        updates = list(session.updates())
    windows = [(update, update.window) for update in updates if update.window]
    dropped = {window.index for _, window in windows if window.dropped}
    without = {window.index for update, window in windows if update.latency_ms is None}
    assert without - dropped == set(lost), "a machine that is busy drops some, which is another matter"
    latency = session.stats.timings.percentiles("latency")
    assert (latency is None) == (len({*lost, *dropped}) == 8)
    assert latency is None or latency.p99 < 60_000, "and not the machine's uptime"


def test_a_slow_encoder_drops_nothing_of_a_file(bundle: Bundle, backend: Backend) -> None:
    with Session(
        bundle, Scripted(12, live=False), backend=Slow(backend, functools.partial(time.sleep, 0.02))
    ) as session:
        updates = list(session.updates())
    assert session.stats.dropped == {}
    assert not any(s.missing for s in final_scores(updates))
    assert {u.latency_ms for u in updates} == {None}, "waiting in the queue is no latency"
    assert "latency" not in " ".join(summary_lines(session.stats))


def test_stop_ends_what_is_open_and_counts_what_waits(bundle: Bundle, backend: Backend) -> None:
    events: list[Event] = []
    source, pictures = Scripted(1000, live=True), itertools.count(1)
    turns = InStep(source, 1)

    def encode() -> None:
        turns.picture()
        if next(pictures) == 16:
            stopper = threading.Thread(target=session.stop)
            stopper.start()
            stopper.join()
            turns.release()

    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        events += session.events()
    assert any(event.state == "end" for event in events)
    assert_every_start_ends(events)
    assert next(pictures) == 17, "what waited is not encoded"
    assert session.stats.windows == 16
    assert session.stats.dropped["stopped"] > 0
    assert session.stats.windows + sum(session.stats.dropped.values()) == session.counts.windows


class Slowed(Scripted):
    """A source that itself lost its sound to an encoder, of the far side of a network, say."""

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            if isinstance(chunk, Samples):
                yield Gap(sense="audio", cause=GapCause.ENCODER_TOO_SLOW, start_s=chunk.time_s, duration_s=1.0)
            else:
                yield chunk


def test_a_gap_caused_by_a_slow_encoder_is_no_dropped_window(bundle: Bundle, backend: Backend) -> None:
    with Session(bundle, Slowed(4, live=False), backend=backend) as session:
        windows = [update.window for update in session.updates() if update.window]
    assert {gap.cause for window in windows for gap in window.gaps} == {GapCause.ENCODER_TOO_SLOW}
    assert [window.dropped for window in windows] == [None] * 4
    assert (session.stats.windows, session.stats.dropped) == (4, {})
