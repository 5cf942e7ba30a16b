"""Whatever a camera brings, each of its seconds is in one account, and each event that starts ends."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.service import Everything, camera_facts, run_facts

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.errors import OutputError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.runtime.types import GapCause, Segment
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store.cameras import Anchor
from ovavel.service.store.care import recovery
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.store.seconds import read_seconds
from ovavel.service.watch.commits import commit
from ovavel.service.watch.economy.run import Basis, RunEconomy
from ovavel.service.watch.runs import camera_watch
from ovavel.service.watch.runs.camera_watch import CLOCK_STEP, CameraWatch, Moment
from ovavel.service.watch.runs.wall_clock import WallClock

START_US = 1_700_000_000_000_000
NAMES = ("dog barking", "car", "other")
VOCABULARY = Vocabulary(names=NAMES, embeddings=TextEmbeddings.shared(np.eye(3, dtype=np.float32)))


def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    similarities = (cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision))
    return HeadOutput(*similarities, fused_score(*similarities))


def segment(index: int, kind: int | None) -> Segment:
    """A second that shows and sounds like the class `kind`; None: a sense is missing."""
    embedding = None if kind is None else np.eye(3, dtype=np.float32)[kind]
    return Segment(index=index, start_s=float(index), vision=embedding, audio=embedding)


def watch(store: Database, *, start_us: int = START_US, run: str = "run-1", lag: int = 2) -> CameraWatch:
    anchor = Anchor(media_us=0, utc_us=start_us, monotonic_us=start_us, cause="start")
    numbers = itertools.count(1)
    with store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=START_US)
        recovery.recover(transaction, now_us=start_us, sinks=(Everything("mqtt"),))
        cameras.open_run(transaction, run_facts(run, "gate", started_us=start_us))
        cameras.add_anchor(transaction, run, anchor)
    basis = Basis(EconomyPlan(), Rule(kind="published"), VOCABULARY.names)
    economy = RunEconomy(list, list, Economy(), basis, EconomyCounts())
    localizer = Localizer(head, VOCABULARY, lag=lag)
    tracker = EventTracker(VOCABULARY.background, vocabulary_version="1")
    ids = (f"{run}-{number}" for number in numbers)
    return CameraWatch(
        localizer,
        economy,
        tracker,
        WallClock(anchor),
        camera_id="gate",
        run_id=run,
        sinks=(Everything("mqtt"),),
        new_event_id=lambda: next(ids),
    )


SECONDS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 2, 2, None]),  # the class, or nothing
        st.sampled_from([None, None, None, GapCause.ENCODER_TOO_SLOW]),
        st.sampled_from([0, 0, 0, 0, 0, 7_000_000, -4_000_000, 200_000]),  # how far the wall clock is set
    ),
    max_size=30,
)


@mock.patch.object(camera_watch, "MOST_UNWRITTEN", 2)
@settings(max_examples=40, deadline=None)
@given(seconds=SECONDS, lag=st.integers(0, 9), dies=st.booleans(), together=st.sampled_from([1, 1, 7, 100]))
def test_every_second_is_accounted_once_and_every_start_has_one_end(
    tmp_path_factory: pytest.TempPathFactory,
    seconds: list[tuple[int | None, GapCause | None, int]],
    lag: int,
    dies: bool,
    together: int,
) -> None:
    """Whether each second is committed or, after a while without a store, many at once."""
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one, offset_us = watch(store, lag=lag), 0
        for index, (kind, dropped, step_us) in enumerate(seconds):
            offset_us += step_us
            monotonic_us = START_US + (index + 1) * 1_000_000
            moment = Moment(utc_us=monotonic_us + offset_us, monotonic_us=monotonic_us)
            one.second(segment(index, None if dropped else kind), moment, dropped=dropped)
            if index % together == 0:
                commit(store, [one])
        commit(store, [one])
        now_us = START_US + len(seconds) * 1_000_000 + offset_us
        if not dies:
            one.end("stopped", Moment(utc_us=now_us, monotonic_us=now_us))
            commit(store, [one])
            one.end("stopped", Moment(utc_us=now_us, monotonic_us=now_us))
            assert not one.unwritten
        later_us = now_us + 60_000_000
        with store.write() as transaction:
            recovery.recover(transaction, now_us=later_us, sinks=(Everything("mqtt"),))
        found = accounts.read_accounts(store.read, "gate", from_us=0, to_us=later_us)
        assert sum(each.total_us for each in found) == later_us - START_US
        decided = sum(each.final for each in found), sum(sum(each.dropped.values()) for each in found)
        drops = [dropped for _, dropped, _ in seconds]
        final = max(0, len(seconds) - lag) if dies else len(seconds)
        assert decided == (drops[:final].count(None), final - drops[:final].count(None))
        log = events.log_after(store.read, 0)
        assert [each.seq for each in log] == list(range(1, len(log) + 1))
        for event in {each.body.id for each in log}:
            kinds = [each.body.kind for each in log if each.body.id == event]
            assert kinds[0] == "start"
            assert [kind in ("end", "retract") for kind in kinds] == [False] * (len(kinds) - 1) + [True]
        assert not rows(store.read, "SELECT 1 FROM run WHERE ended_us IS NULL")
        assert len(rows(store.read, "SELECT 1 FROM outbox")) == len(log)


def test_an_event_lies_where_it_was_on_the_wall_clock(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one = watch(store)
        for index, kind in enumerate([2, 0, 0, 0, 2, 2, 2, 2]):
            utc_us = START_US + (index + 1) * 1_000_000
            one.second(segment(index, kind), Moment(utc_us=utc_us, monotonic_us=utc_us))
        commit(store, [one])
        (ended,) = [each.body for each in events.log_after(store.read, 0) if each.body.kind == "end"]
        assert (ended.start_us - START_US, ended.end_us - START_US) == (1_000_000, 4_000_000)
        assert (ended.label, ended.camera, ended.end_cause) == ("dog barking", "gate", None)


def test_a_clock_set_forward_is_a_gap_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one = watch(store, lag=0)
        for index, step_us in enumerate([0, 0, 3_600_000_000, 3_600_000_000]):
            monotonic_us = START_US + (index + 1) * 1_000_000
            one.second(segment(index, 2), Moment(utc_us=monotonic_us + step_us, monotonic_us=monotonic_us))
        commit(store, [one])
        found = accounts.read_accounts(store.read, "gate", from_us=0, to_us=START_US * 2)
        # The step is seen at the end of the third second, which still has its old time.
        assert sum(each.gap_us.get(CLOCK_STEP, 0) for each in found) == 3_600_000_000
        assert sum(each.final_us for each in found) == 4_000_000
        assert [each.cause for each in anchors(store)] == ["start", "clock step"]


def anchors(store: Database) -> list[Anchor]:
    found = rows(store.read, "SELECT media_us, utc_us, monotonic_us, cause FROM anchor ORDER BY monotonic_us")
    return [Anchor(media_us=m, utc_us=u, monotonic_us=o, cause=c) for m, u, o, c in found]


def vocabulary(*names: str) -> Vocabulary:
    """Some of `NAMES`, each with its own embedding, the background last."""
    rows_of = [NAMES.index(name) for name in (*names, "other")]
    return Vocabulary(names=(*names, "other"), embeddings=TextEmbeddings.shared(np.eye(3, dtype=np.float32)[rows_of]))


OTHERS = (vocabulary("car"), vocabulary("dog barking"), vocabulary("car", "dog barking"), VOCABULARY)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 2, None]),  # the class, or nothing
        st.sampled_from([None, None, None, *OTHERS]),  # other names from here on
        st.booleans(),  # whether the store can be written
        st.sampled_from([0, 0, 0, 7_000_000, -4_000_000]),  # how far the wall clock is set
    ),
    max_size=25,
)


def rename(one: CameraWatch, names: Vocabulary, run: str, now: Moment) -> None:
    facts = run_facts(run, "gate", started_us=one.decided_us)
    facts = dataclasses.replace(facts, vocabulary_version=names.version)
    one.rename(names, EventTracker("other", vocabulary_version=names.version), facts, "names changed", now)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, lag=st.integers(0, 9))
def test_other_names_lose_no_second_and_no_end(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int | None, Vocabulary | None, bool, int]],
    lag: int,
) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one, write, offset_us, now = watch(store, lag=lag), store.write, 0, Moment(utc_us=0, monotonic_us=0)
        for index, (kind, names, writable, step_us) in enumerate(steps):
            offset_us += step_us
            monotonic_us = START_US + (index + 1) * 1_000_000
            now = Moment(utc_us=monotonic_us + offset_us, monotonic_us=monotonic_us)
            store.write = write if writable else full  # type: ignore[method-assign, assignment]
            if names:
                rename(one, names, f"run-{index}-named", now)
            one.second(segment(index, kind), now)
            commit(store, [one])
        store.write = write  # type: ignore[method-assign]
        one.end("stopped", now)
        commit(store, [one])
        assert not one.trouble
        assert violations(store.read) == []
        accounted = accounts.read_accounts(store.read, "gate", from_us=0, to_us=2**62)
        assert sum(each.final for each in accounted) == len(steps)
        assert not any(each.dropped for each in accounted)
        assert {cause for each in accounted for cause, us in each.gap_us.items() if us} <= {CLOCK_STEP}

        names_of = {one.version: set(one.names) for one in OTHERS} | {"1": set(NAMES)}
        runs = rows(store.read, "SELECT vocabulary_version, end_cause FROM run ORDER BY rowid")
        assert [version for version, _ in runs] == ["1", *(names.version for _, names, _, _ in steps if names)]
        assert [cause for _, cause in runs] == ["names changed"] * (len(runs) - 1) + ["stopped"]
        found = rows(store.read, "SELECT label, vocabulary_version FROM event JOIN run ON run.id = run_id")
        assert all(label in names_of[version] for label, version in found)
        for (event,) in rows(store.read, "SELECT id FROM event"):
            read_seconds(store.read, event)  # whose places in the vocabulary are those of its run


def full() -> AbstractContextManager[Any]:
    raise OutputError("the disk is full")


def test_what_is_not_final_is_decided_on_with_the_new_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of five seconds of barking with lag 2, two are not final when the name goes: they are background then."""
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one = watch(store, lag=2)
        moments = [Moment(utc_us=START_US + s * 1_000_000, monotonic_us=START_US + s * 1_000_000) for s in range(20)]
        for index in range(5):
            one.second(segment(index, 0), moments[index + 1])
        rename(one, vocabulary("car"), "run-2", moments[5])
        for index in range(5, 8):
            one.second(segment(index, 1), moments[index + 1])
        rename(one, VOCABULARY, "run-3", moments[8])
        one.end("stopped", moments[8])
        commit(store, [one])
        query = "SELECT label, (start_us - ?1) / 1000000, (end_us - ?1) / 1000000, state, end_cause, run_id FROM event"
        assert rows(store.read, f"{query} ORDER BY start_us", (START_US,)) == [
            ("dog barking", 0, 3, "ended", "names changed", "run-1"),
            ("car", 5, 6, "ended", "names changed", "run-2"),
            ("car", 6, 8, "ended", "stopped", "run-3"),
        ]
        runs = rows(
            store.read, "SELECT id, (started_us - ?1) / 1000000, (ended_us - ?1) / 1000000 FROM run", (START_US,)
        )
        assert runs == [("run-1", 0, 3), ("run-2", 3, 6), ("run-3", 6, 8)]
        assert [(each.cause, (each.utc_us - START_US) // 1_000_000) for each in anchors(store)] == [
            ("start", 0),
            ("names changed", 3),
            ("names changed", 6),
        ]


def test_a_disk_that_is_full_for_a_day_does_not_fill_the_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one, seconds = watch(store, lag=0), camera_watch.MOST_UNWRITTEN + 5000
        for index in range(seconds):
            utc_us = START_US + (index + 1) * 1_000_000
            dropped = GapCause.ENCODER_TOO_SLOW if index % 1000 < 3 else None
            one.second(
                segment(index, None if dropped else 2), Moment(utc_us=utc_us, monotonic_us=utc_us), dropped=dropped
            )
        assert len(one._unwritten) <= camera_watch.MOST_UNWRITTEN
        assert sum(len(each.seconds) for each in one._unwritten) < camera_watch.MOST_UNWRITTEN + 20
        commit(store, [one])
        found = accounts.read_accounts(store.read, "gate", from_us=0, to_us=2**62)
        assert sum(each.final for each in found) == seconds - 18
        assert sum(each.dropped.get("encoder too slow", 0) for each in found) == 18
        assert sum(each.total_us for each in found) == seconds * 1_000_000
