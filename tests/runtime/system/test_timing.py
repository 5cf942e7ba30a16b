"""Durations by stage."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.system.timing import Timings


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_nearest_ranks(durations: list[float]) -> None:
    timings = Timings()
    for duration in durations:
        timings.add("stage", duration)
    found = timings.percentiles("stage")
    assert found is not None
    for percent, value in zip((50, 95, 99), found, strict=True):
        assert value in durations
        # The smallest value that at least so many percent of all are not above.
        assert 100 * sum(d <= value for d in durations) >= percent * len(durations)
        assert 100 * sum(d < value for d in durations) < percent * len(durations)


def test_the_newest_are_kept_in_order() -> None:
    timings = Timings(keep=3)
    for duration in range(5):
        timings.add("b", duration)
    timings.add("a", 7.0)
    assert timings.durations_ms("b") == (2, 3, 4)
    assert timings.stages() == ("b", "a")
    assert timings.percentiles("never") is None
    assert timings.durations_ms("never") == ()
    assert timings.stages() == ("b", "a")
    timings.clear()
    assert timings.stages() == ()


def test_a_block_is_timed_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [100.0]
    monkeypatch.setattr("ovavel.runtime.system.timing.time", SimpleNamespace(perf_counter=lambda: clock_s[0]))
    timings = Timings()
    with timings.measure("wait"):
        clock_s[0] += 0.02
    assert timings.durations_ms("wait") == pytest.approx((20,))


def test_a_block_that_fails_is_not_timed() -> None:
    timings = Timings()
    with pytest.raises(ZeroDivisionError), timings.measure("fail"):
        raise ZeroDivisionError
    assert timings.stages() == ()


def test_threads_may_add_and_read_at_once() -> None:
    timings = Timings(keep=50)
    done = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        try:
            while not done.is_set():
                for stage in timings.stages():
                    timings.percentiles(stage)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20_000):
        timings.add(f"stage {i % 40}", float(i))
    done.set()
    reader.join()
    assert not failures
    assert len(timings.durations_ms("stage 0")) == 50
