"""Cutting events into seconds and videos into windows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ovavel.eval.datasets.dataset import LabelledEvent
from ovavel.eval.datasets.readers.seconds import held_in, problem_of, whole_seconds, window_starts

TIMES = st.floats(0, 30, allow_nan=False).filter(lambda x: x == 0 or x > 1e-6)


@given(TIMES, TIMES, st.integers(1, 25))
def test_an_event_has_the_seconds_that_it_covers_by_half(a: float, b: float, length: int) -> None:
    start_s, end_s = sorted((a, b))
    seconds = whole_seconds(start_s, end_s, length)
    assert len(seconds) >= 1
    assert 0 <= seconds[0] <= seconds[-1] < length
    covered = [min(end_s, s + 1) - max(start_s, s) for s in range(length)]
    half = [s for s in range(length) if covered[s] > 0.5 + 1e-9]
    assert set(half) <= set(seconds)
    if len(half) > 1:
        assert all(covered[s] >= 0.5 - 1e-9 for s in seconds)


@given(st.integers(1, 200))
def test_windows_hold_every_second_once_but_the_last(length: int) -> None:
    starts = window_starts(length)
    assert starts[0] == 0
    assert {s for start in starts for s in range(start, start + 10)} >= set(range(length))
    assert starts[:-1] == list(range(0, 10 * len(starts) - 10, 10))
    assert length < 10 or starts[-1] == length - 10


@given(st.lists(st.tuples(st.sampled_from("abc"), TIMES, TIMES), max_size=6))
def test_every_usable_event_is_in_some_second(events: list[tuple[str, float, float]]) -> None:
    usable = [event for each in events if not problem_of(event := LabelledEvent(*each), 10)]
    held = held_in(usable, 10)
    assert len(held) == 10
    assert {name for second in held for name in second} == {event.label for event in usable}
    assert all(list(second) == sorted(set(second)) for second in held)
