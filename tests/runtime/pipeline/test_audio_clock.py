"""The clock filter alone: drift, jitter, outliers, small and large jumps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.runtime.pipeline.audio_clock import ClockFilter


@settings(max_examples=30, deadline=None)
@given(
    ppm=st.floats(-200, 200),
    block_s=st.sampled_from([0.01, 0.1, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_drift_is_separated_from_jitter(ppm: float, block_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clock = ClockFilter(live=True)
    for step in range(round(600 / block_s)):
        true_s = ppm * 1e-6 * step * block_s
        assert clock.observe(true_s + rng.uniform(-0.015, 0.015), block_s) == 0.0
        if step * block_s > 10:
            assert abs(clock.offset_s - true_s) < 6 * clock.uncertainty_s + 1e-4
    assert clock.offset_s == pytest.approx(true_s, abs=0.008)
    assert clock.drift * 1e6 == pytest.approx(ppm, abs=60)


def test_offset_after_an_hour_is_within_milliseconds() -> None:
    rng = np.random.default_rng(1)
    clock = ClockFilter(live=True)
    errors_s = []
    for step in range(36_000):
        clock.observe(200e-6 * step * 0.1 + rng.uniform(-0.015, 0.015), 0.1)
        errors_s.append(clock.offset_s - 200e-6 * step * 0.1)
    assert np.abs(errors_s[6000:]).max() < 0.005
    assert clock.drift == pytest.approx(200e-6, abs=20e-6)


def test_one_late_block_hardly_moves_the_offset() -> None:
    clock = ClockFilter(live=True)
    for _ in range(200):
        clock.observe(0.0, 0.1)
    assert clock.observe(0.1, 0.1) == 0.0
    assert abs(clock.offset_s) < 0.002


@pytest.mark.parametrize(("live", "jump_s"), [(True, 0.12), (False, 0.04), (True, -0.5), (False, -0.5)])
def test_a_large_jump_is_reported_at_once(live: bool, jump_s: float) -> None:
    clock = ClockFilter(live=live)
    for _ in range(50):
        assert clock.observe(0.0, 0.1) == 0.0
    assert clock.observe(jump_s, 0.1) == pytest.approx(jump_s)


@pytest.mark.parametrize(("live", "step_s"), [(True, 0.05), (True, -0.08), (False, 0.021), (False, -0.03)])
def test_a_small_lasting_jump_is_reported_within_a_second(live: bool, step_s: float) -> None:
    clock = ClockFilter(live=live)
    for _ in range(50):
        assert clock.observe(0.0, 0.1) == 0.0
    reported = [clock.observe(step_s, 0.1) for _ in range(10)]
    first = next(jump_s for jump_s in reported if jump_s)
    assert first == pytest.approx(step_s, abs=0.003)
    assert reported.index(first) >= 4  # not from one odd timestamp


def test_restart_forgets_the_offset_and_keeps_the_drift() -> None:
    clock = ClockFilter(live=True)
    for step in range(3000):
        clock.observe(1e-4 * step * 0.1, 0.1)
    drift = clock.drift
    clock.restart()
    assert clock.offset_s == 0.0
    assert clock.drift == drift == pytest.approx(1e-4, rel=0.1)
