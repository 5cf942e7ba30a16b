"""When a block of sound was recorded, however late its callback runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.sources.microphone import _BlockTimes

BLOCK_S, APART_S = 0.025, 1_000.0
"""Length of a block; how far PortAudio's clock is behind the monotonic one."""


def steady(times: _BlockTimes, begin_s: float, count: int, *, wait_s: float = 0.0001, age_s: float = 0.03) -> float:
    """`count` blocks as they are recorded; returns when the next one is due."""
    for i in range(count):
        now_s = begin_s + i * BLOCK_S
        arrived_s, start_s = times.of(now_s - APART_S, now_s - APART_S - age_s, BLOCK_S, now_s + wait_s)
        assert arrived_s == pytest.approx(now_s, abs=0.001)
        assert start_s == pytest.approx(now_s - age_s, abs=0.001)
    return begin_s + count * BLOCK_S


@given(st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_waiting_for_the_interpreter_changes_no_time(waits_s: list[float]) -> None:
    times = _BlockTimes()
    begin_s = steady(times, 5_000.0, 20)
    called_s = 0.0
    for i, wait_s in enumerate(waits_s):
        now_s = begin_s + i * BLOCK_S  # as PortAudio had it, while the call waits
        called_s = max(called_s, now_s + wait_s)
        arrived_s, start_s = times.of(now_s - APART_S, now_s - APART_S - 0.03, BLOCK_S, called_s)
        assert arrived_s == pytest.approx(now_s, abs=0.001)
        assert start_s == pytest.approx(now_s - 0.03, abs=0.001)


@pytest.mark.parametrize("stop_s", [2.0, 10.0, 20.0])
def test_blocks_that_waited_while_the_process_was_stopped_keep_their_time(stop_s: float) -> None:
    times = _BlockTimes()
    due_s = steady(times, 5_000.0, 50)
    woke_s = due_s + stop_s
    for i in range(round(stop_s / BLOCK_S)):
        now_s = woke_s + i * 0.0005
        recorded_s = due_s + i * BLOCK_S
        _, start_s = times.of(now_s - APART_S, recorded_s - APART_S, BLOCK_S, now_s)
        assert start_s == pytest.approx(min(recorded_s, now_s - BLOCK_S), abs=0.001)
    steady(times, woke_s + 1, 50)


def test_an_age_that_no_wait_explains_is_not_believed() -> None:
    times = _BlockTimes()
    due_s = steady(times, 5_000.0, 50)
    for i in range(100):  # they come as they are recorded, and yet are said to be 20 s old
        now_s = due_s + i * BLOCK_S
        _, start_s = times.of(now_s - APART_S, now_s - APART_S - 20, BLOCK_S, now_s)
        assert start_s == pytest.approx(now_s - BLOCK_S)


def test_a_system_without_timestamps() -> None:
    assert _BlockTimes().of(0.0, 0.0, BLOCK_S, 7.0) == (7.0, 7.0 - BLOCK_S)
