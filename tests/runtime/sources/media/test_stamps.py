"""Timestamps of one container, made continuous; and the media clock that they are placed on."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovavel.runtime.sources.media.media_clock import Timeline
from ovavel.runtime.sources.media.stamps import BACK_S, HOLE_S, LEAP_S, Stamps
from ovavel.runtime.types import Sense


def continuous(stamps: Stamps, sense: Sense, items: Iterable[tuple[float | None, float]]) -> list[tuple[Any, bool]]:
    """What becomes of timestamps with their durations: each corrected (None where it is ignored), and jumps."""
    done = []
    for stamp_s, duration_s in items:
        stamps.note(sense, stamp_s)
        done += stamps.push(sense, stamp_s, duration_s, stamp_s)
    done += stamps.flush(sense)
    return [
        (None if each.shift_s is None or each.item is None else each.item + each.shift_s, each.jumped) for each in done
    ]


def every(step_s: float, start_s: float, end_s: float) -> list[float]:
    return [start_s + index * step_s for index in range(round((end_s - start_s) / step_s))]


def times(done: list[tuple[Any, bool]]) -> list[float]:
    return [time_s for time_s, _ in done if time_s is not None]


def test_a_pause_is_not_a_jump() -> None:
    stamps: Stamps = Stamps(["vision", "audio"])
    items = every(0.04, 0, 2) + every(0.04, 9, 11)
    done = continuous(stamps, "vision", [(stamp_s, 0.04) for stamp_s in items])
    assert times(done) == pytest.approx(items)
    assert not any(jumped for _, jumped in done)


@pytest.mark.parametrize("step_s", [-1.5, -1e6, 40.0, 1e6])
def test_time_continues_where_expected_after_a_jump(step_s: float) -> None:
    stamps: Stamps = Stamps(["vision"])
    items = every(0.04, 0, 2) + [stamp_s + step_s for stamp_s in every(0.04, 2, 4)]
    done = continuous(stamps, "vision", [(stamp_s, 0.04) for stamp_s in items])
    assert times(done) == pytest.approx(every(0.04, 0, 4), abs=1e-6)
    assert [jumped for _, jumped in done].count(True) == 1


def test_both_streams_jump_by_the_same() -> None:
    stamps: Stamps = Stamps(["vision", "audio"])
    for shift_s in (0.0, -5.0):  # the second part begins at 0 again, its sound 50 ms after its picture
        for index in range(125):
            for sense, late_s in (("vision", 0.0), ("audio", 0.05)):
                stamp_s = index * 0.04 + late_s
                stamps.note(sense, stamp_s)
                for each in stamps.push(sense, stamp_s, 0.04, stamp_s):
                    assert each.item + each.shift_s == pytest.approx(each.item - shift_s)


@given(outlier_s=st.one_of(st.floats(-1e6, -1), st.floats(1.5, 1e6)), at=st.integers(1, 48))
def test_one_wrong_timestamp_moves_nothing_else(outlier_s: float, at: int) -> None:
    stamps: Stamps = Stamps(["vision", "audio"])
    items: list[float] = every(0.04, 0, 2)
    true = [*items[:at], *items[at + 1 :]]
    items[at] += outlier_s
    done = continuous(stamps, "vision", [(stamp_s, 0.04) for stamp_s in items])
    assert done[at] == (None, False)
    assert times(done) == pytest.approx(true)


far_apart = st.lists(st.integers(-10_000, 10_000).filter(bool), min_size=5, max_size=5, unique=True)


@given(start=st.integers(5, 40), count=st.integers(1, 5), wrong=far_apart)
def test_after_a_damaged_stretch_everything_is_back_in_its_place(start: int, count: int, wrong: list[int]) -> None:
    stamps: Stamps = Stamps(["vision", "audio"])
    items = every(0.04, 0, 4)
    items[start : start + count] = [index * 77.7 for index in wrong[:count]]
    done = continuous(stamps, "vision", [(stamp_s, 0.04) for stamp_s in items])
    assert times(done[start + count + 2 :]) == pytest.approx(every(0.04, 0, 4)[start + count + 2 :])


@given(jitter=st.lists(st.floats(-0.02, 0.02), min_size=30, max_size=30), origin_s=st.floats(-1e5, 1e5))
def test_jitter_is_not_a_jump(jitter: list[float], origin_s: float) -> None:
    stamps: Stamps = Stamps(["audio"], start_s=origin_s)
    timeline = Timeline(("audio",), patience_s=HOLE_S)
    timeline.start(origin_s)
    items = [origin_s + index * 0.1 + shift_s for index, shift_s in enumerate(jitter)]
    done = continuous(stamps, "audio", [(stamp_s, 0.1) for stamp_s in items])
    for index, ((time_s, jumped), shift_s) in enumerate(zip(done, jitter, strict=True)):
        placed = timeline.place("audio", time_s, 0.1)
        assert not jumped
        assert placed.gaps == ()
        assert placed.time_s == pytest.approx(max(0, index * 0.1 + shift_s), abs=0.03)


wild = st.one_of(st.none(), st.floats(-1e9, 1e9), st.floats(0, 20), st.just(math.nan), st.just(math.inf))
pieces = st.lists(st.tuples(st.sampled_from(["vision", "audio"]), wild, st.floats(0, 2)), max_size=60)

BACK_TO_THE_OTHERS_CLOCK = [
    *(("vision", None, 1.75), ("vision", 1.0, 0.0)),
    *(("audio", None, 1.5), ("audio", None, 0.5), ("audio", 1.0, 0.0), ("audio", 0.0, 0.0)),
]


@given(pieces=pieces, origin_s=st.one_of(st.none(), st.floats(-1e9, 1e9)))
@example(pieces=BACK_TO_THE_OTHERS_CLOCK, origin_s=None)
def test_whatever_the_timestamps_the_clock_never_runs_back_or_away(pieces: list, origin_s: float | None) -> None:
    stamps: Stamps = Stamps(("vision", "audio"), start_s=origin_s)
    timeline = Timeline(("vision", "audio"), patience_s=HOLE_S)
    timeline.start(origin_s)
    newest = {"vision": 0.0, "audio": 0.0}
    declared = {"vision": 0.0, "audio": 0.0}
    bound_s = LEAP_S
    for sense, stamp_s, duration_s in pieces:
        stamps.note(sense, stamp_s)
        bound_s += LEAP_S + duration_s
        for (item_s, item_duration_s), shift_s, _ in stamps.push(sense, stamp_s, duration_s, (stamp_s, duration_s)):
            known = item_s is not None and shift_s is not None
            placed = timeline.place(sense, item_s + shift_s if known else None, item_duration_s)
            for gap in (*placed.gaps, *timeline.overdue()):
                assert gap.duration_s >= 0
                assert gap.start_s >= declared[gap.sense] - 1e-6, "a stretch was declared twice"
                if gap in placed.gaps and placed.time_s is not None:
                    assert gap.start_s + gap.duration_s <= placed.time_s + BACK_S + 1e-6
                declared[gap.sense] = gap.start_s + gap.duration_s
            if placed.time_s is not None:
                assert placed.time_s >= newest[sense]
                newest[sense] = placed.time_s
            assert timeline.position_s <= bound_s + 1e-6
    for gap in timeline.finish():
        assert gap.start_s + gap.duration_s == pytest.approx(timeline.position_s)
