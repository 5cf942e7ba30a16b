"""Sound is resampled and placed the same however it is cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtime.chunks import SOUND, assert_accounted, cut, gap_s, run, samples

from ovavel.runtime.pipeline.assembler import WindowAssembler


@settings(max_examples=30, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    wanted_hz=st.sampled_from([16_000, 48_000, 44_100]),
    channels=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=20).filter(lambda sizes: sum(sizes) > 500 * len(sizes)),
    tail_s=st.floats(0, 0.99),
    seed=st.integers(0, 2**16),
)
def test_windows_equal_one_shot_resampling_however_it_is_cut(
    rate_hz: int, wanted_hz: int, channels: int, sizes: list[int], tail_s: float, seed: int
) -> None:
    n = round((2 + tail_s) * rate_hz)
    wave = (0.2 * np.random.default_rng(seed).standard_normal((channels, n))).astype(np.float32)
    assembler = WindowAssembler(SOUND, live=False, rate_hz=wanted_hz)
    windows = run(assembler, cut(wave, rate_hz, itertools.cycle(sizes)))
    whole = wave.T if rate_hz == wanted_hz else soxr.resample(np.ascontiguousarray(wave.T), rate_hz, wanted_hz)
    assert len(windows) == (3 if len(whole) >= 2.5 * wanted_hz else 2)
    whole = np.pad(whole, [(0, wanted_hz), (0, 0)])
    for window in windows:
        assert window.waveform is not None
        assert window.waveform.dtype == np.float32
        np.testing.assert_array_equal(window.waveform, whole[window.index * wanted_hz :][:wanted_hz].T)
        assert {gap.cause for gap in window.gaps} <= {"end of media"}
    assert not windows[0].gaps


def test_gaps_and_drift_are_in_seconds_at_any_rate() -> None:
    """A hole, an overlap and what is left at the end, at two rates of the windows: the same times."""
    wave = np.ones((1, 24_000), np.float32)
    chunks = [samples(0, wave, 16_000), samples(2.0, wave, 16_000), samples(3.0, wave, 16_000)]
    found = {}
    for rate_hz in (16_000, 48_000):
        assembler = WindowAssembler(SOUND, live=False, rate_hz=rate_hz)
        windows = run(assembler, chunks)
        assert {w.waveform.shape for w in windows if w.waveform is not None} == {(1, rate_hz)}
        gaps = [(gap.cause, round(gap.start_s, 3), round(gap.duration_s, 3)) for w in windows for gap in w.gaps]
        counts = assembler.counts
        assert counts.rate_hz == rate_hz
        dropped = {cause: round(n / rate_hz, 2) for cause, n in counts.samples_dropped.items()}
        found[rate_hz] = gaps, dropped, round(counts.samples_in / rate_hz, 2)
    assert found[16_000] == found[48_000]
    assert found[16_000][1] == {"overlapping samples": 0.5}


@pytest.mark.parametrize(("decimals", "packets", "seconds"), [(3, 10, 7200), (6, 1, 600)])
def test_two_hours_of_aac_packets_have_no_gap(decimals: int, packets: int, seconds: int) -> None:
    n = packets * 1024  # at 44.1 kHz, timestamps rounded as containers do
    block = np.zeros((1, n), np.float32)  # silence that was heard
    assembler = WindowAssembler(SOUND, live=False)
    windows = 0
    for i in range(seconds * 44_100 // n):
        for window in assembler.push(samples(round(i * n / 44_100, decimals), block, 44_100)):
            assert not window.gaps
            windows += 1
    assert windows == seconds - 1
    assembler.flush()
    assert_accounted(assembler.counts)
    assert set(assembler.counts.samples_dropped) <= {"end of media"}


def test_rate_and_channels_may_change_in_mid_stream() -> None:
    tone = lambda rate_hz, start_s, stop_s: np.sin(  # noqa: E731
        2 * np.pi * 200 * np.arange(round(start_s * rate_hz), round(stop_s * rate_hz)) / rate_hz
    ).astype(np.float32)
    chunks = [
        samples(0, tone(48_000, 0, 1.3), 48_000),
        samples(1.3, np.stack([tone(44_100, 1.3, 2.6)] * 2), 44_100),
        samples(2.6, tone(8_000, 2.6, 4), 8_000),
    ]
    assembler = WindowAssembler(SOUND, live=False)
    windows = run(assembler, chunks)
    assert [window.waveform.shape for window in windows if window.waveform is not None] == [
        (1, 16_000),
        (2, 16_000),
        (2, 16_000),
        (1, 16_000),
    ]
    for window, mono in ((windows[1], slice(0, 4_600)), (windows[2], slice(9_800, None))):
        assert window.waveform is not None
        np.testing.assert_array_equal(window.waveform[0, mono], window.waveform[1, mono])
    assert gap_s(windows) <= 3 / 16_000  # only the rounding at the end
    whole = np.concatenate([window.waveform[0] for window in windows if window.waveform is not None])
    true = np.sin(2 * np.pi * 200 * np.arange(64_000) / 16_000)
    quiet = np.ones(64_000, bool)  # the resampler rings where the signal starts and ends
    for edge in (0, 20_800, 41_600, 64_000):
        quiet[max(0, edge - 200) : edge + 200] = False
    assert np.abs(whole - true)[quiet].max() < 0.01
    assert assembler.counts.samples_dropped == {}


def test_a_signal_through_block_edges_has_no_clicks() -> None:
    rate_hz = 44_100
    wave = np.sin(2 * np.pi * 440 * np.arange(3 * rate_hz) / rate_hz).astype(np.float32)[None]
    windows = run(WindowAssembler(SOUND, live=True), cut(wave, rate_hz, itertools.cycle([441, 1000, 37])))
    whole = np.concatenate([window.waveform[0] for window in windows if window.waveform is not None])
    true = np.sin(2 * np.pi * 440 * np.arange(len(whole)) / 16_000)
    assert np.abs(whole - true)[200:-200].max() < 1e-3
