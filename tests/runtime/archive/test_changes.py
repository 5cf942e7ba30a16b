"""The events under two settings, the newest day first, are those of deciding on all days in order."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.archives import DAY, archive_clip, write_seconds
from support.demo_copies import BUNDLE

from ovavel.runtime.archive.changes import Setting, Timeline, changes, differences, settled_from
from ovavel.runtime.archive.layout import ContextSecond, Model
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.relabel import relabelled
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import Event, SegmentScores

SPAN = DAY, DAY + 3 * 86_400


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Three days: midnight is inside the drum's event, twice."""
    root = tmp_path_factory.mktemp("archive")
    for day in (1, 2):
        archive_clip(root, DAY + day * 86_400 - 31)
    return Archive(root)


def key(event: Event) -> tuple[str, float, float, float]:
    return event.label, event.start_s, event.end_s, event.peak_margin


@pytest.mark.parametrize(
    "after",
    [
        Setting(rule=Rule(kind="positive"), rules=EventRules(start_margin=0.27, keep_margin=0.2)),
        Setting(rule=Rule(kind="positive"), rules=EventRules(min_duration_s=5, bridge_s=0)),
        Setting(rule=Rule(kind="agreement"), rules=EventRules()),
    ],
    ids=["margins", "durations", "rule"],
)
def test_the_events_are_those_of_deciding_again(archive: Archive, after: Setting) -> None:
    bundle, before = Bundle.open(BUNDLE), Setting(rule=Rule(kind="positive"), rules=EventRules())
    from_s, to_s = SPAN
    found = list(changes(archive.days(), bundle, before, after, from_s=from_s, to_s=to_s))
    assert [str(each.day.day) for each in found] == ["2026-11-30", "2026-11-29", "2026-11-28"]
    edges = [(each.from_s, each.to_s) for each in reversed(found)]
    assert (edges[0][0], edges[-1][1]) == SPAN
    assert all(end == begin for (_, end), (begin, _) in pairwise(edges))
    for each in found:
        assert all(each.from_s <= one.start_s < each.to_s for one in each.differences)
    got = [one for each in reversed(found) for one in each.differences]
    for setting, ours in (
        (before, sorted((e.label, e.before_start_s, e.before_end_s) for e in got if e.before_start_s is not None)),
        (after, sorted((e.label, e.start_s, e.end_s) for e in got if e.kind != "gone")),
    ):
        again = list(
            relabelled(
                archive.days(),
                bundle.vocabulary,
                setting.rule,
                rules=setting.rules,
                calibration=bundle.manifest.calibration_for(setting.rule),
                margins=bundle.manifest.calibration,
            )
        )
        assert ours == sorted((e.label, e.start_s, e.end_s) for part in again for e in part.events)
        assert sum(part.seconds for part in again) == sum(each.seconds for each in found) == 80
    assert {each.kind for each in got} - {"kept"}


def test_the_same_setting_changes_nothing(archive: Archive) -> None:
    setting = Setting(rule=Rule(kind="positive"), rules=EventRules())
    found = changes(archive.days(), Bundle.open(BUNDLE), setting, setting, from_s=SPAN[0], to_s=SPAN[1])
    assert {one.kind for each in found for one in each.differences} == {"kept"}


@pytest.fixture(scope="module")
def clip(archive: Archive) -> tuple[Model, list[ContextSecond]]:
    """The seconds of one clip, which begins at 0."""
    start_s, found = DAY + 86_400 - 31, list[ContextSecond]()
    for day in archive.days()[:0:-1]:
        with day.open() as files:
            found += files.seconds(0, 86_400)
    moved = [ContextSecond(utc_s=s.utc_s - start_s, vision=s.vision, audio=s.audio) for s in found]
    return archive.days()[0].model, [each for each in moved if each.utc_s < 40]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 86_400 - 40))
@example(0)
@example(1)
@example(2)
@example(305)
def test_an_event_belongs_to_its_day_whatever_the_time(clip: tuple[Model, list[ContextSecond]], clock_s: int) -> None:
    """The camera came back then: the first event did not begin on the day before, which is in the span, too."""
    model, seconds = clip
    setting = Setting(rule=Rule(kind="positive"), rules=EventRules(bridge_s=1))
    with tempfile.TemporaryDirectory() as folder:
        for day in (0, 2):
            start_s = DAY + day * 86_400 + clock_s
            moved = [ContextSecond(utc_s=start_s + s.utc_s, vision=s.vision, audio=s.audio) for s in seconds]
            write_seconds(Path(folder), "yard", model, moved)
        days = Archive(Path(folder)).days()
        bundle = Bundle.open(BUNDLE)
        newest, _ = changes(days, bundle, setting, setting, from_s=SPAN[0], to_s=SPAN[1])
        (alone,) = changes(days[:1], bundle, setting, setting, from_s=SPAN[0], to_s=SPAN[1])
    assert newest.differences == alone.differences[-len(newest.differences) :]
    if clock_s > 1:  # longer after midnight than is bridged
        assert newest.differences == alone.differences
        assert newest.from_s == newest.day.start_s + clock_s


@st.composite
def decided(draw: st.DrawFn) -> tuple[list[int], list[SegmentScores]]:
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 9]), min_size=1, max_size=60))
    times = [sum(steps[: at + 1]) for at in range(len(steps))]
    kinds = draw(st.lists(st.sampled_from(["dog", "drum", "other"]), min_size=len(steps), max_size=len(steps)))
    margins = draw(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.6]), min_size=len(steps), max_size=len(steps)))
    empty = np.zeros(0, np.float32)
    scores = [
        SegmentScores(
            index=at,
            start_s=float(at),
            label=label,
            score=1.0,
            scores=np.array([1.0 - margin], np.float32),
            vision_similarity=empty,
            audio_similarity=empty,
            context=0,
            final=True,
        )
        for at, label, margin in zip(times, kinds, margins, strict=True)
    ]
    return times, scores


def tracked(scores: list[SegmentScores], rules: EventRules) -> list[tuple[str, float, float, float]]:
    tracker = EventTracker("other", rules)
    return sorted(key(each) for each in [*tracker.push(scores), *tracker.close()] if each.state == "end")


@given(
    decided(),
    st.lists(st.booleans(), max_size=6),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([1.0, 2.0]),
)
def test_before_a_settled_second_all_is_over(
    given: tuple[list[int], list[SegmentScores]],
    before: list[bool],
    pause_s: int,
    bridge_s: float,
    keep: float,
    shortest_s: float,
) -> None:
    """Whatever there was until midnight, and however long after it the camera came back."""
    times, scores = given
    rules = EventRules(start_margin=0.2, keep_margin=keep, bridge_s=bridge_s, min_duration_s=shortest_s)
    midnight_s = times[0] - pause_s
    at = settled_from(np.array(times), [(rules, Timeline.of(scores))], "other", midnight_s)
    assert 0 <= at <= len(times)
    assert (at == 0) == (pause_s > bridge_s), "no event lasts through a pause that is longer than what is bridged"
    earlier = [second(midnight_s - ago) for ago, there in zip(range(len(before), 0, -1), before, strict=True) if there]
    parts = tracked([*earlier, *scores[:at]], rules) + tracked(scores[at:], rules)
    assert sorted(parts) == tracked([*earlier, *scores], rules)
    seconds = list(Timeline.of(scores).decisions(np.array(times)))
    assert tracked(seconds, rules) == tracked(scores, rules)


def second(at: int) -> SegmentScores:
    empty = np.zeros(0, np.float32)
    return SegmentScores(
        index=at,
        start_s=float(at),
        label="dog",
        score=1.0,
        scores=np.array([0.5], np.float32),
        vision_similarity=empty,
        audio_similarity=empty,
        context=0,
        final=True,
    )


def test_no_event_lasts_through_hours_that_the_archive_lacks() -> None:
    """The dog barks when the camera goes, and again when it is back."""
    spans = [each[1:3] for each in tracked([second(at) for at in (1, 2, 3, 5, 7, 3600, 3601)], EventRules(bridge_s=1))]
    assert spans == [(1, 8), (3600, 3602)]
    spans = [each[1:3] for each in tracked([second(at) for at in (1, 4)], EventRules(bridge_s=1))]
    assert spans == [(1, 2), (4, 5)], "as if the seconds between were there and had no name"


SPANS = st.lists(st.tuples(st.sampled_from(["dog", "drum"]), st.integers(0, 30), st.integers(1, 6)), max_size=8)


def events(spans: list[tuple[str, int, int]]) -> list[Event]:
    found: list[Event] = []
    for number, (label, start, length) in enumerate(spans):
        if all(each.label != label or start + length <= each.start_s or start >= each.end_s for each in found):
            found.append(
                Event(
                    id=number,
                    label=label,
                    start_s=start,
                    end_s=start + length,
                    peak_score=1,
                    peak_margin=0.5,
                    state="end",
                    vocabulary_version="",
                )
            )
    return found


@given(SPANS, SPANS)
def test_every_event_is_in_one_difference(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    ours, theirs = events(before), events(after)
    found = differences(ours, theirs)
    assert sorted((e.label, e.before_start_s, e.before_end_s) for e in found if e.before_start_s is not None) == sorted(
        (e.label, e.start_s, e.end_s) for e in ours
    )
    assert sorted((e.label, e.start_s, e.end_s) for e in found if e.kind != "gone") == sorted(
        (e.label, e.start_s, e.end_s) for e in theirs
    )
    both = {(e.label, e.start_s, e.end_s) for e in ours} & {(e.label, e.start_s, e.end_s) for e in theirs}
    assert {(e.label, e.start_s, e.end_s) for e in found if e.kind == "kept"} == both
    for each in found:
        if each.kind == "changed":
            assert each.before_start_s is not None and each.before_end_s is not None
            assert min(each.end_s, each.before_end_s) > max(each.start_s, each.before_start_s)
