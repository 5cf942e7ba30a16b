"""Whatever a camera brings, each of its seconds is in one account, and each event that starts ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.service import Everything, camera_facts, run_facts

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.runtime.types import GapCause, Segment
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store.cameras import Anchor
from ovavel.service.store.care import recovery
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.camera_watch import CLOCK_STEP, CameraWatch, Moment
from ovavel.service.watch.commits import commit
from ovavel.service.watch.wall_clock import WallClock

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
    localizer = Localizer(head, VOCABULARY, lag=lag)
    tracker = EventTracker(VOCABULARY.background, vocabulary_version="1")
    ids = (f"{run}-{number}" for number in numbers)
    return CameraWatch(
        localizer,
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


@settings(max_examples=40, deadline=None)
@given(seconds=SECONDS, lag=st.integers(0, 9), dies=st.booleans())
def test_every_second_is_accounted_once_and_every_start_has_one_end(
    tmp_path_factory: pytest.TempPathFactory,
    seconds: list[tuple[int | None, GapCause | None, int]],
    lag: int,
    dies: bool,
) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        one, offset_us = watch(store, lag=lag), 0
        for index, (kind, dropped, step_us) in enumerate(seconds):
            offset_us += step_us
            monotonic_us = START_US + (index + 1) * 1_000_000
            moment = Moment(utc_us=monotonic_us + offset_us, monotonic_us=monotonic_us)
            one.second(segment(index, None if dropped else kind), moment, dropped=dropped)
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
