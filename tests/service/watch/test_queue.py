"""The queue before the encoder: fair, in order, bounded, and every dropped window in its place."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.types import DropCause, GapCause
from ovavel.service.capture.feed import Ended
from ovavel.service.capture.messages import Captured
from ovavel.service.link import Array
from ovavel.service.watch.queue import ROOM, FairQueue

FRAME = Array((1,), b"\0\0\0\0")


def window(index: int, *, media: bool = True) -> Captured:
    return Captured(
        index=index,
        start_s=float(index),
        frame=FRAME if media else None,
        sound=None,
        picture=None,
        gaps=(),
        notices=(),
        monotonic_us=0,
        utc_us=0,
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.booleans()),
        st.tuples(st.just("take"), st.sampled_from("123"), st.just(True)),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_window_comes_out_once_and_in_order(steps: list[tuple[str, str, bool]]) -> None:
    queue = FairQueue(dict.fromkeys("abc", 1))
    put: dict[str, list[int]] = defaultdict(list)
    taken: dict[str, list[int]] = defaultdict(list)

    def take(most: int) -> None:
        found = queue.take(most, timeout_s=0)
        assert len({each.camera for each in found}) == len(found), "one of a camera at a time"
        for each in found:
            assert isinstance(each.news, Captured)
            taken[each.camera].append(each.news.index)
            if each.dropped:
                assert each.dropped is GapCause.ENCODER_TOO_SLOW
                assert each.news.frame is None

    for action, what, media in steps:
        if action == "take":
            take(int(what))
            continue
        queue.put(what, window(len(put[what]), media=media))
        put[what].append(len(put[what]))
    queue.close()
    while any(queue.waiting(camera) for camera in "abc"):
        take(3)
    assert taken == {camera: indexes for camera, indexes in put.items() if indexes}


def test_the_newest_windows_keep_their_media() -> None:
    queue = FairQueue({"gate": 1})
    for index in range(ROOM + 3):
        queue.put("gate", window(index))
    queue.put("gate", Ended("stopped", ""))
    found = [queue.take(1)[0] for _ in range(ROOM + 4)]
    assert [each.dropped is None for each in found[:-1]] == [False] * 3 + [True] * ROOM
    assert isinstance(found[-1].news, Ended)


def test_cameras_take_turns() -> None:
    queue = FairQueue(dict.fromkeys("abc", 1))
    for index in range(2):
        for camera in "abc":
            queue.put(camera, window(index, media=False))
    assert [each.camera for each in queue.take(2)] == ["a", "b"]
    assert [each.camera for each in queue.take(2)] == ["c", "a"]
    assert [each.camera for each in queue.take(2)] == ["b", "c"]
    queue.close()
    assert queue.take(3) == []


def test_a_turn_that_took_more_work_counts_as_more_turns() -> None:
    queue = FairQueue(dict.fromkeys("ab", 1))
    queue.room = 6
    for index in range(6):
        for camera in "ab":
            queue.put(camera, window(index))

    def turn() -> str:
        return queue.take(1)[0].camera

    assert [turn(), turn(), turn()] == ["a", "b", "a"]
    queue.charge("a", 2)
    assert [turn() for _ in range(5)] == ["b", "b", "b", "a", "b"]
    assert [turn() for _ in range(4)] == ["a", "b", "a", "a"]
    for camera in "ba":
        queue.put(camera, window(6))
    assert [turn(), turn()] == ["b", "a"], "whoever had nothing to do has no more credit than others"


@pytest.mark.parametrize("windows_a_second", [0.75, 1.5, 2.0, 2.5])
def test_an_encoder_that_is_too_slow_drops_as_much_of_each_camera(windows_a_second: float) -> None:
    queue, done, budget = FairQueue(dict.fromkeys("abc", 1)), Counter[str](), 0.0
    for index in range(300):
        for camera in "abc":
            queue.put(camera, window(index))
        budget += windows_a_second
        while budget >= 1 and (taken := queue.take(1, timeout_s=0)):
            done[taken[0].camera] += taken[0].dropped is None
            budget -= taken[0].dropped is None
    assert max(done.values()) - min(done.values()) <= ROOM
    assert done.total() > 300 * windows_a_second - 2


def test_one_window_in_several_is_looked_at_and_the_others_say_so() -> None:
    queue = FairQueue({"gate": 3, "yard": 1})
    for index in range(6):
        queue.put("gate", window(index))
        queue.put("yard", window(index))
    taken = [each for _ in range(6) for each in queue.take(2)]
    looked_at = {each.news.index: each for each in taken if each.camera == "gate" and isinstance(each.news, Captured)}
    assert [looked_at[index].news.frame is not None for index in range(6)] == [True, False, False] * 2  # type: ignore[union-attr]
    assert {looked_at[index].dropped for index in (1, 2, 4, 5)} == {DropCause.NOT_LOOKED_AT}
    assert looked_at[0].dropped is looked_at[3].dropped is None
    # What is not looked at takes no room from what is: nothing of it was dropped for want of room.
    assert sum(each.dropped is GapCause.ENCODER_TOO_SLOW for each in taken) == 2, "of yard, six where four may wait"
