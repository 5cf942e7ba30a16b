"""Clocks that drift, jitter, or leap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtime.chunks import BOTH, SOUND, Camera, assert_accounted, gap_s, max_error_s, numbered, run, samples

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.types import Gap, Samples


def test_a_slow_error_in_a_file_is_followed() -> None:
    # 48 kHz sound whose timestamps run 100 ppm slow: in 20 minutes 120 ms too many samples.
    rate_hz, true_hz = 16_000, 16_000 * 1.0001
    blocks = (samples(i * 3200 / true_hz, numbered(i * 3200, 3200), rate_hz) for i in range(6000))
    windows = run(WindowAssembler(SOUND, live=False), blocks)
    assert max_error_s(windows, lambda number: number / true_hz) < 0.015
    assert gap_s(windows, "clock drift") == pytest.approx(0.12, abs=0.015)


@settings(max_examples=15, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    ppm=st.floats(-200, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_live_impulses_stay_within_a_video_frame(rate_hz: int, ppm: float, seed: int) -> None:
    """An impulse at the middle of every true second, through any rate, block size, jitter and drift, with losses."""
    rng = np.random.default_rng(seed)
    true_hz = rate_hz * (1 + ppm * 1e-6)
    wave = np.zeros((1, round(40 * true_hz)), np.float32)
    wave[0, np.round((np.arange(40) + 0.5) * true_hz).astype(int)] = 1
    chunks, at = [], 0
    while at < wave.shape[1]:
        n = round(rng.uniform(0.02, 0.2) * rate_hz)
        chunks.append(samples(max(0, at / true_hz + rng.uniform(-0.015, 0.015)), wave[:, at : at + n], rate_hz))
        at += n
        if rng.random() < 0.02:
            at += round(rng.uniform(0.17, 1.5) * rate_hz)  # lost
    windows = run(WindowAssembler(SOUND, live=True), chunks)
    found = 0
    for window in windows:
        if window.waveform is not None and window.waveform.max() > 0.05:
            found += 1
            middle = int(window.waveform[0].argmax()) / 16_000
            # Where a run starts, a single timestamp is known, 15 ms off at most; then the filter has to settle.
            assert abs(middle - 0.5) < 0.025
    assert found >= 20


def card(ppm: float, *, hours: float, block: int, seed: int = 0) -> tuple[float, WindowAssembler, list[Gap]]:
    """A sound card that is off by `ppm`, its blocks stamped with ±15 ms; returns the worst error in s."""
    rng = np.random.default_rng(seed)
    true_hz = 16_000 * (1 + ppm * 1e-6)
    n_blocks = round(hours * 3600 * true_hz) // block
    jitter_s = rng.uniform(-0.015, 0.015, n_blocks)
    assembler = WindowAssembler(SOUND, live=True)
    wave = np.empty((2, block), np.float32)
    wave[1] = np.arange(block)
    probe = np.unique(np.concatenate([np.arange(0, 400), np.arange(0, 16_000, 97), np.arange(15_600, 16_000)]))
    worst, last, windows, gaps = 0.0, -1.0, 0, []
    for i in itertools.chain(range(n_blocks), [None]):
        if i is None:
            made = assembler.flush()
        else:
            wave[0] = i + 1  # blocks of several channels are copied when they are pushed
            time_s = max(0.0, i * block / true_hz + jitter_s[i])
            made = assembler.push(Samples(time_s=time_s, captured_s=time_s, waveform=wave, rate_hz=16_000))
        for window in made:
            assert window.index == windows
            windows += 1
            gaps += window.gaps
            assert window.waveform is not None
            high, low = window.waveform[:, probe].astype(np.float64)
            number = ((high - 1) * block + low)[high > 0]
            assert number[0] > last
            assert (np.diff(number) > 0).all()
            last = number[-1]
            worst = max(worst, np.abs(number / true_hz - window.index - probe[high > 0] / 16_000).max())
    assert_accounted(assembler.counts)
    assert assembler.counts.samples_in == n_blocks * block
    assert windows in (round(hours * 3600), round(hours * 3600) - 1)
    return worst, assembler, gaps


@pytest.mark.parametrize(("ppm", "block"), [(200, 1600), (-200, 1600), (0, 160), (-120, 700)])
def test_drift_is_followed_and_measured(ppm: float, block: int) -> None:
    worst_s, assembler, gaps = card(ppm, hours=0.5 if block > 160 else 0.1, block=block)
    assert worst_s < 0.016
    assert assembler.drift_ppm == pytest.approx(ppm, abs=30)
    assert {gap.cause for gap in gaps} <= {"no sound yet", "clock drift", "end of media"}
    # Corrections wait for the edge of a second.
    assert all(gap.start_s == int(gap.start_s) for gap in gaps if gap.cause == "clock drift")


@pytest.mark.slow
@pytest.mark.parametrize(("ppm", "hours"), [(200, 6), (-200, 6), pytest.param(200, 24, marks=pytest.mark.proof)])
def test_a_day_of_drift_stays_within_a_video_frame(ppm: float, hours: int) -> None:
    worst_s, assembler, gaps = card(ppm, hours=hours, block=16_000)
    assert worst_s < 0.016
    assert assembler.drift_ppm == pytest.approx(ppm, abs=20)
    drift_s = sum(gap.duration_s for gap in gaps if gap.cause == "clock drift")
    assert drift_s == pytest.approx(abs(ppm) * 1e-6 * hours * 3600, abs=0.5)
    if ppm > 0:
        assert assembler.counts.samples_dropped["clock drift"] / 16_000 == pytest.approx(drift_s, abs=0.5)


@pytest.mark.parametrize("leap_s", [1e9, 3600.0, -1e6])
def test_a_clock_that_leaps_is_followed_without_a_flood(leap_s: float) -> None:
    camera = Camera()
    assembler = WindowAssembler(BOTH, live=False)
    windows = []
    for i in range(300):  # 30 s, the clock leaps after 10
        time_s = i / 10 + (leap_s if i >= 100 else 0)
        for chunk in (samples(time_s, numbered(i * 1_600, 1_600)), camera.frame(time_s, i)):
            made = assembler.push(chunk)
            assert len(made) <= 2
            windows += made
    windows += assembler.flush()
    assert len(windows) == 30
    assert [window.frame is not None and window.waveform is not None for window in windows] == [True] * 30
    # The senses leap together and stay together.
    shown = [int(window.frame[0, 0, 0]) for window in windows if window.frame is not None]
    assert shown == [(10 * window.index + 5) % 256 for window in windows]
    assert max_error_s(windows, lambda number: number / 16_000) < 1e-6
    assert {gap.sense for window in windows for gap in window.gaps if gap.cause == "timestamp jump"} == BOTH
    assert_accounted(assembler.counts)
