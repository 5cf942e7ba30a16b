"""The window assembler on streams whose every sample and frame tells its own time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.assembler import AssemblerCounts, WindowAssembler
from ovavel.runtime.types import Chunk, Frame, Gap, Notice, Samples, Sense, Window

BOTH: frozenset[Sense] = frozenset({"vision", "audio"})
SOUND: frozenset[Sense] = frozenset({"audio"})
PICTURE: frozenset[Sense] = frozenset({"vision"})


class Camera:
    """Frames whose picture holds their number; counts conversions."""

    def __init__(self) -> None:
        self.converted: list[int] = []

    def frame(self, time_s: float, number: int = 0, captured_s: float | None = None) -> Frame:
        def image() -> NDArray[np.uint8]:
            self.converted.append(number)
            return np.full((2, 3, 3), number % 256, np.uint8)

        return Frame(time_s=time_s, captured_s=time_s if captured_s is None else captured_s, image=image)

    def frames(self, times_s: Iterable[float]) -> list[Frame]:
        return [self.frame(time_s, number) for number, time_s in enumerate(times_s)]


def samples(time_s: float, waveform: NDArray[Any], rate_hz: int = 16_000) -> Samples:
    wave = np.atleast_2d(np.asarray(waveform, np.float32))
    return Samples(time_s=time_s, captured_s=time_s + wave.shape[1] / rate_hz, waveform=wave, rate_hz=rate_hz)


def numbered(first: int, n: int) -> NDArray[np.float32]:
    """Two channels that hold each sample's number, counted from 1, so that silence is 0; exact in float32."""
    number = np.arange(first + 1, first + n + 1)
    return np.stack([number // 65536, number % 65536]).astype(np.float32)


def numbers(window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions within the window that hold samples, and their numbers counted from 0."""
    if window.waveform is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    number = window.waveform[0].astype(np.int64) * 65536 + window.waveform[1].astype(np.int64)
    places = np.flatnonzero(number)
    return places, number[places] - 1


def run(assembler: WindowAssembler, chunks: Iterable[Chunk]) -> list[Window]:
    """All windows; checks that they count from 0 without holes and that everything is accounted for."""
    windows = [window for chunk in chunks for window in assembler.push(chunk)]
    windows += assembler.flush()
    assert [window.index for window in windows] == list(range(len(windows)))
    assert all(window.start_s == window.index for window in windows)
    assert_accounted(assembler.counts)
    assert assembler.counts.windows == len(windows)
    assert assembler.counts.samples_pending == assembler.counts.frames_pending == 0
    return windows


def assert_accounted(counts: AssemblerCounts) -> None:
    assert counts.samples_in == counts.samples_used + sum(counts.samples_dropped.values()) + counts.samples_pending
    assert counts.frames_in == counts.frames_used + sum(counts.frames_dropped.values()) + counts.frames_pending


def gap_s(windows: Iterable[Window], cause: str | None = None) -> float:
    return sum(gap.duration_s for window in windows for gap in window.gaps if cause in (None, gap.cause))


def causes(window: Window) -> list[tuple[str, str]]:
    return [(gap.sense, gap.cause) for gap in window.gaps]


def cut(wave: NDArray[np.float32], rate_hz: int, sizes: Iterable[int], start_s: float = 0.0) -> list[Samples]:
    """Blocks of a signal with exact timestamps."""
    blocks, at = [], 0
    for size in sizes:
        if at >= wave.shape[1]:
            break
        blocks.append(samples(start_s + at / rate_hz, wave[:, at : at + size], rate_hz))
        at += size
    return blocks


# ---- Frame


def test_the_frame_nearest_the_middle_is_kept_and_only_it_is_converted() -> None:
    camera = Camera()
    assembler = WindowAssembler(PICTURE, live=False)
    windows = run(assembler, camera.frames(i / 25 for i in range(100)))
    assert len(windows) == 4
    # At 25 fps, 0.48 and 0.52 are equally near: the earlier.
    assert [int(window.frame[0, 0, 0]) for window in windows if window.frame is not None] == [12, 37, 62, 87]
    assert camera.converted == [12, 37, 62, 87]
    assert all(not window.gaps and window.waveform is None for window in windows)
    assert assembler.counts.frames_dropped == {"not needed": 96}


@settings(max_examples=60, deadline=None)
@given(
    times_s=st.lists(st.floats(0, 20, width=32), min_size=1, max_size=60, unique=True).map(sorted),
    live=st.booleans(),
)
def test_every_window_shows_the_frame_that_the_rule_says(times_s: list[float], live: bool) -> None:
    camera = Camera()
    windows = run(WindowAssembler(PICTURE, live=live), camera.frames(times_s))
    hold_s = 1.0 if live else 5.0
    assert len(windows) >= math.floor(times_s[-1])
    for window in windows:
        middle_s = window.index + 0.5
        inside = [t for t in times_s if window.index <= t < window.index + 1]
        before = [t for t in times_s if t < middle_s and middle_s - t <= hold_s]
        if inside:
            expected = min(inside, key=lambda t: (round(abs(t - middle_s) * 1e6), t))
        elif before:
            expected = before[-1]
        else:
            assert window.frame is None
            assert causes(window) == [("vision", "no frame")]
            continue
        assert window.frame is not None
        assert int(window.frame[0, 0, 0]) == times_s.index(expected)
        assert not window.gaps
    assert len(camera.converted) == len(set(camera.converted))


def test_a_slide_show_lasts_and_each_slide_is_converted_once() -> None:
    camera = Camera()
    slides = camera.frames([0.0, 2.0, 4.0, 6.0])
    blocks = cut(numbered(0, 8 * 16_000), 16_000, itertools.repeat(1600))
    windows = run(WindowAssembler(BOTH, live=False), sorted([*slides, *blocks], key=lambda chunk: chunk.time_s))
    assert [int(window.frame[0, 0, 0]) for window in windows if window.frame is not None] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert camera.converted == [0, 1, 2, 3]
    assert gap_s(windows) == 0


def test_a_frozen_camera_is_not_shown_for_long() -> None:
    camera = Camera()
    frames = camera.frames(i / 30 for i in range(60))  # freezes at 2 s
    blocks = cut(numbered(0, 8 * 16_000), 16_000, itertools.repeat(1600))
    windows = run(WindowAssembler(BOTH, live=True), sorted([*frames, *blocks], key=lambda chunk: chunk.time_s))
    assert [window.frame is not None for window in windows] == [True] * 3 + [False] * 5
    assert all(causes(window) == [("vision", "late video")] for window in windows[3:])


def test_a_declared_gap_ends_what_is_on_screen_and_names_the_cause() -> None:
    camera = Camera()
    lost = [
        Gap(sense="vision", cause="camera lost", start_s=2.4 + i / 2, duration_s=0.5) for i in range(5)
    ]  # 2.4 to 4.9
    chunks = [*camera.frames([0.5, 1.5, 2.3]), *lost, camera.frame(4.95, 9), camera.frame(5.5, 5), camera.frame(6.5, 6)]
    windows = run(WindowAssembler(PICTURE, live=False), chunks)
    assert [window.frame is not None for window in windows] == [True, True, True, False, True, True, True, True]
    found = [(gap.start_s, round(gap.duration_s, 9), gap.cause) for window in windows for gap in window.gaps]
    assert found == [(2.4, 0.6, "camera lost"), (3.0, 1.0, "camera lost"), (4.0, 0.9, "camera lost")]


def test_frames_out_of_order_find_their_windows() -> None:
    camera = Camera()
    lost = Gap(sense="vision", cause="camera lost", start_s=1.3, duration_s=0.1)
    chunks = [camera.frame(1.2, 1), lost, camera.frame(0.9, 0), camera.frame(3.5, 3), camera.frame(2.4, 2)]
    windows = run(WindowAssembler(BOTH, live=False), [*chunks, samples(0, numbered(0, 72_000))])
    assert [int(window.frame[0, 0, 0]) for window in windows if window.frame is not None] == [0, 1, 2, 3, 3]


def test_one_picture_makes_one_window() -> None:
    windows = run(WindowAssembler(PICTURE, live=False), Camera().frames([0.0]))
    assert [window.frame is not None for window in windows] == [True]


def test_a_sense_left_out_is_ignored_without_noise() -> None:
    camera = Camera()
    chunks: list[Chunk] = [
        samples(0, numbered(0, 32_000)),
        Gap(sense="audio", cause="microphone lost", start_s=2, duration_s=9),
        *camera.frames(i / 10 for i in range(20)),
    ]
    windows = run(WindowAssembler(PICTURE, live=False), chunks)
    assert [(window.waveform, window.gaps) for window in windows] == [(None, ())] * 2
    windows = run(WindowAssembler(SOUND, live=False), [*camera.frames([0.5, 1.5]), samples(0, numbered(0, 32_000))])
    assert [(window.frame, window.gaps) for window in windows] == [(None, ())] * 2


# ---- Sound in files


@settings(max_examples=30, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    channels=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=20).filter(lambda sizes: sum(sizes) > 500 * len(sizes)),
    tail_s=st.floats(0, 0.99),
    seed=st.integers(0, 2**16),
)
def test_windows_equal_one_shot_resampling_however_it_is_cut(
    rate_hz: int, channels: int, sizes: list[int], tail_s: float, seed: int
) -> None:
    n = round((2 + tail_s) * rate_hz)
    wave = (0.2 * np.random.default_rng(seed).standard_normal((channels, n))).astype(np.float32)
    windows = run(WindowAssembler(SOUND, live=False), cut(wave, rate_hz, itertools.cycle(sizes)))
    whole = wave.T if rate_hz == 16_000 else soxr.resample(np.ascontiguousarray(wave.T), rate_hz, 16_000)
    assert len(windows) == (3 if len(whole) >= 40_000 else 2)
    whole = np.pad(whole, [(0, 16_000), (0, 0)])
    for window in windows:
        assert window.waveform is not None
        assert window.waveform.dtype == np.float32
        np.testing.assert_array_equal(window.waveform, whole[window.index * 16_000 :][:16_000].T)
        assert {gap.cause for gap in window.gaps} <= {"end of media"}
    assert not windows[0].gaps


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


def test_a_slow_error_in_a_file_is_followed() -> None:
    # 48 kHz sound whose timestamps run 100 ppm slow: in 20 minutes 120 ms too many samples.
    rate_hz, true_hz = 16_000, 16_000 * 1.0001
    blocks = (samples(i * 3200 / true_hz, numbered(i * 3200, 3200), rate_hz) for i in range(6000))
    windows = run(WindowAssembler(SOUND, live=False), blocks)
    assert max_error_s(windows, lambda number: number / true_hz) < 0.015
    assert gap_s(windows, "clock drift") == pytest.approx(0.12, abs=0.015)


def max_error_s(windows: Iterable[Window], true_s: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> float:
    """Largest distance of any sample from its true time. Also: no sample twice, none out of order."""
    worst, last = 0.0, -1
    for window in windows:
        places, number = numbers(window)
        if not len(places):
            continue
        assert number[0] > last
        assert (np.diff(number) > 0).all()
        last = int(number[-1])
        worst = max(worst, float(np.abs(true_s(number) - (window.index + places / 16_000)).max()))
    return worst


@settings(max_examples=60, deadline=None)
@given(data=st.data(), live=st.booleans())
def test_lost_and_repeated_stretches_are_placed_and_counted(data: st.DataObject, live: bool) -> None:
    smallest_s = 0.125 if live else 0.045
    at, number, chunks, lost = 0.0, 0, [], 0.0
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(1, 6))):
            n = data.draw(st.integers(100, 8_000))
            # The number tells the true place on the media clock, so a hole skips numbers.
            chunks.append(samples(at, numbered(number, n)))
            number += n
            at = number / 16_000
        hole = round(data.draw(st.floats(smallest_s, 4.0)) * 16_000)
        number += hole
        lost += hole / 16_000
        at = number / 16_000
    lost -= hole / 16_000
    windows = run(WindowAssembler(SOUND, live=live), chunks)
    assert max_error_s(windows, lambda number: number / 16_000) < 1e-9
    assembled_s = max(chunk.time_s + chunk.waveform.shape[1] / 16_000 for chunk in chunks)
    inside = len(windows) >= assembled_s  # else the last hole may be in the tail that was too short
    assert gap_s(windows, "lost samples") == pytest.approx(lost, abs=1e-6 if inside else 0.5)
    for window in windows:
        places, _ = numbers(window)
        assert (window.waveform is None) == (len(places) == 0)
        assert len(places) / 16_000 + gap_s([window]) == pytest.approx(1.0)


def test_overlapping_samples_are_dropped_and_counted() -> None:
    chunks = [
        samples(0, numbered(0, 24_000)),
        samples(1.0, numbered(16_000, 16_000)),  # half a second of it again
        samples(2.0, numbered(32_000, 16_000)),
    ]
    assembler = WindowAssembler(SOUND, live=False)
    windows = run(assembler, chunks)
    assert max_error_s(windows, lambda number: number / 16_000) < 1e-9
    assert assembler.counts.samples_dropped == {"overlapping samples": 8_000}
    assert gap_s(windows) == 0, "they were heard before: nothing is missing"
    assert sum(len(numbers(window)[0]) for window in windows) == 48_000


def test_timestamps_that_run_backwards_lose_nothing_uncounted() -> None:
    chunks = [samples(time_s, numbered(0, 16_000)) for time_s in (0, 1, 2, 1, 0, 0.5, 3, 4)]
    assembler = WindowAssembler(SOUND, live=False)
    windows = run(assembler, chunks)
    assert len(windows) == 5
    assert assembler.counts.samples_in == 8 * 16_000
    assert assembler.counts.samples_dropped == {"overlapping samples": 3 * 16_000}


def test_a_declared_hole_bears_its_cause() -> None:
    chunks: list[Chunk] = [
        samples(0, numbered(0, 8_000)),
        Gap(sense="audio", cause="microphone overflow", start_s=0.5, duration_s=0.05),
        samples(0.55, numbered(8_800, 7_200)),
        Gap(sense="audio", cause="microphone lost", start_s=1.0, duration_s=2.5),
        samples(3.5, numbered(56_000, 8_000)),
    ]
    windows = run(WindowAssembler(SOUND, live=True), chunks)
    assert max_error_s(windows, lambda number: number / 16_000) < 1e-9
    found = [(round(gap.start_s, 6), round(gap.duration_s, 6), gap.cause) for w in windows for gap in w.gaps]
    lost = "microphone lost"
    assert found == [(0.5, 0.05, "microphone overflow"), (1, 1, lost), (2, 1, lost), (3, 0.5, lost)]
    assert [window.waveform is None for window in windows] == [False, True, True, False]


def test_jitter_after_a_declared_hole_drops_nothing() -> None:
    chunks: list[Chunk] = [
        samples(0, numbered(0, 16_000)),
        Gap(sense="audio", cause="microphone overflow", start_s=1.0, duration_s=0.005),
        samples(0.99, numbered(16_000, 16_000)),
    ]
    assembler = WindowAssembler(SOUND, live=True)
    windows = run(assembler, chunks)
    assert gap_s(windows) == 0
    assert assembler.counts.samples_used == 32_000


def test_a_gap_where_nothing_is_missing_is_counted_all_the_same() -> None:
    reported = Gap(sense="audio", cause="microphone underflow", start_s=0.5, duration_s=0)
    windows = run(WindowAssembler(SOUND, live=True), [samples(0, numbered(0, 8_000)), reported, *cut_on(8_000, 24_000)])
    assert [gap for window in windows for gap in window.gaps] == [reported]


def cut_on(first: int, n: int) -> list[Samples]:
    return [samples(first / 16_000, numbered(first, n))]


def test_invalid_samples_are_silent_and_counted_however_the_sound_is_cut() -> None:
    wave = np.full((2, 96_000), 0.25, np.float32)
    wave[0, 47_900:48_100] = np.nan
    wave[1, 60_000] = -np.inf
    wave[1, 60_001] = 1e30
    results = []
    for size in (96_000, 4_800, 777):
        windows = run(WindowAssembler(SOUND, live=False), cut(wave, 48_000, itertools.repeat(size)))
        assert all(np.isfinite(window.waveform).all() for window in windows if window.waveform is not None)
        results.append([(gap.cause, gap.start_s, gap.duration_s) for window in windows for gap in window.gaps])
    assert results[0] == results[1] == results[2]
    assert [(cause, round(duration_s * 48_000)) for cause, _, duration_s in results[0]] == [
        ("invalid samples", 100),
        ("invalid samples", 102),
    ]


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


# ---- Live sound


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


# ---- Both


def test_windows_come_out_once_both_senses_have_passed() -> None:
    camera = Camera()
    assembler = WindowAssembler(BOTH, live=True)
    assert assembler.push(samples(0, numbered(0, 16_000))) == []
    assert assembler.push(camera.frame(0.5, 1)) == []
    assert assembler.push(camera.frame(0.99, 2)) == []
    (window,) = assembler.push(camera.frame(1.01, 3, captured_s=77))
    assert window.frame is not None
    assert window.waveform is not None
    assert window.gaps == ()
    assert window.captured_s == 1.0  # when its last sample arrived, and not when the next frame did


@pytest.mark.parametrize(("live", "patience_s"), [(True, 2), (False, 10)])
def test_a_late_sense_is_not_waited_for_beyond_patience(live: bool, patience_s: int) -> None:
    camera = Camera()
    assembler = WindowAssembler(BOTH, live=live)
    frames = camera.frames(i / 10 for i in range(300))
    windows = []
    for frame in frames:
        windows += assembler.push(frame)
        assert len(windows) == (0 if frame.time_s <= patience_s else int(frame.time_s))
    assert all(window.waveform is None and causes(window) == [("audio", "late sound")] for window in windows)
    # The sound comes after all: what is too late is dropped and counted, the rest has its place.
    windows += assembler.push(samples(0, numbered(0, 30 * 16_000)))
    windows += assembler.flush()
    assert [window.index for window in windows] == list(range(30))
    assert assembler.counts.samples_dropped == {"late sound": 29 * 16_000}
    assert numbers(windows[-1])[1][0] == 29 * 16_000
    assert windows[-1].gaps == ()
    assert_accounted(assembler.counts)


def test_late_frames_are_dropped_and_counted() -> None:
    camera = Camera()
    assembler = WindowAssembler(BOTH, live=True)
    windows = [window for block in cut(numbered(0, 96_000), 16_000, [8_000] * 12) for window in assembler.push(block)]
    assert len(windows) == 6
    assert all(causes(window) == [("vision", "late video")] for window in windows)
    windows += run_on(assembler, camera.frames([0.5, 1.5, 5.5]), cut_on(96_000, 16_000), [camera.frame(6.5, 9)])
    assert windows[6].frame is not None
    assert windows[6].frame[0, 0, 0] == 9
    assert assembler.counts.frames_dropped == {"late video": 3}
    assert_accounted(assembler.counts)


def run_on(assembler: WindowAssembler, *groups: Iterable[Chunk]) -> list[Window]:
    return [w for chunk in itertools.chain(*groups) for w in assembler.push(chunk)] + assembler.flush()


@settings(max_examples=30, deadline=None)
@given(
    fps=st.floats(1, 60),
    rate_hz=st.sampled_from([16_000, 44_100, 48_000]),
    sizes=st.lists(st.integers(200, 9_000), min_size=1, max_size=10),
    other_sizes=st.lists(st.integers(200, 9_000), min_size=1, max_size=10),
    seconds=st.floats(1, 6),
)
def test_the_same_media_gives_the_same_windows_however_it_arrives(
    fps: float, rate_hz: int, sizes: list[int], other_sizes: list[int], seconds: float
) -> None:
    wave = (0.1 * np.random.default_rng(7).standard_normal((2, round(seconds * rate_hz)))).astype(np.float32)
    times_s = [i / fps for i in range(math.ceil(seconds * fps))]
    first = run(
        WindowAssembler(BOTH, live=False),
        sorted(
            [*Camera().frames(times_s), *cut(wave, rate_hz, itertools.cycle(sizes))], key=lambda chunk: chunk.time_s
        ),
    )
    second = run(  # loosely interleaved: all the pictures first
        WindowAssembler(BOTH, live=False),
        [*Camera().frames(times_s), *cut(wave, rate_hz, itertools.cycle(other_sizes))],
    )
    assert len(first) == len(second) >= 1
    for one, other in zip(first, second, strict=True):
        assert one.gaps == other.gaps
        np.testing.assert_array_equal(np.asarray(one.frame), np.asarray(other.frame))
        np.testing.assert_array_equal(np.asarray(one.waveform), np.asarray(other.waveform))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), live=st.booleans(), senses=st.sampled_from([BOTH, SOUND, PICTURE]))
def test_anything_goes_in_and_everything_is_accounted_for(
    data: st.DataObject, live: bool, senses: frozenset[Sense]
) -> None:
    times_s = st.one_of(st.floats(-5, 40), st.sampled_from([1e12, -1e12, math.nan, math.inf, 0.0, 130.0]))
    camera = Camera()
    chunk = st.one_of(
        st.builds(camera.frame, times_s, st.integers(0, 9)),
        st.builds(
            lambda time_s, n, channels, rate_hz: samples(time_s, np.ones((channels, n), np.float32), rate_hz),
            times_s,
            st.integers(0, 20_000),
            st.integers(1, 3),
            st.sampled_from([8_000, 16_000, 44_100]),
        ),
        st.builds(
            lambda sense, start_s, duration_s: Gap(sense=sense, cause="x", start_s=start_s, duration_s=duration_s),
            st.sampled_from(["vision", "audio"]),
            times_s,
            st.one_of(st.floats(-1, 20), st.sampled_from([0.0, 1e9, math.inf, math.nan])),
        ),
    )
    assembler = WindowAssembler(senses, live=live)
    made = 0
    for one in data.draw(st.lists(chunk, max_size=25)):
        windows = assembler.push(one)
        assert_accounted(assembler.counts)
        assert len(windows) <= 130  # no flood
        assert [window.index for window in windows] == list(range(made, made + len(windows)))
        made += len(windows)
        check(windows, senses)
    windows = assembler.flush()
    assert [window.index for window in windows] == list(range(made, made + len(windows)))
    check(windows, senses)
    counts = assembler.counts
    assert_accounted(counts)
    assert counts.samples_pending == counts.frames_pending == 0


def check(windows: Iterable[Window], senses: frozenset[Sense]) -> None:
    for window in windows:
        for gap in window.gaps:
            assert gap.sense in senses
            assert gap.duration_s >= 0
        for sense, part in (("vision", window.frame), ("audio", window.waveform)):
            if part is None and sense in senses:
                assert any(gap.sense == sense for gap in window.gaps)


# ---- Ends and hostile clocks


@pytest.mark.parametrize(("seconds", "n_windows", "dropped"), [(2.5, 3, {}), (2.49, 2, {"end of media": 7_840})])
def test_the_tail_comes_out_from_half_a_second_on(seconds: float, n_windows: int, dropped: dict[str, int]) -> None:
    assembler = WindowAssembler(SOUND, live=False)
    windows = run(assembler, cut(numbered(0, round(seconds * 16_000)), 16_000, itertools.repeat(1_000)))
    assert len(windows) == n_windows
    assert assembler.counts.samples_dropped == dropped
    if n_windows == 3:
        (gap,) = windows[-1].gaps
        assert (gap.cause, gap.start_s, gap.duration_s) == ("end of media", 2.5, 0.5)


def test_the_longer_sense_decides_where_the_media_ends() -> None:
    camera = Camera()
    windows = run(
        WindowAssembler(BOTH, live=False), [*camera.frames(i / 10 for i in range(20)), samples(0, numbered(0, 80_000))]
    )
    assert len(windows) == 5
    assert [window.frame is not None for window in windows] == [True] * 5  # the last frame stays on screen
    windows = run(
        WindowAssembler(BOTH, live=False), [*camera.frames(i / 10 for i in range(50)), samples(0, numbered(0, 32_000))]
    )
    assert [causes(window) for window in windows] == [[], []] + [[("audio", "end of media")]] * 3


def test_a_window_is_as_new_as_what_was_captured_in_it() -> None:
    windows = run(
        WindowAssembler(PICTURE, live=True), [Camera().frame(0.5, captured_s=9), Camera().frame(3.5, captured_s=11)]
    )
    assert [window.captured_s for window in windows] == [9, None, None, 11, None]
    assert windows[2].frame is None


def test_nothing_at_all_makes_no_window() -> None:
    assert run(WindowAssembler(BOTH, live=False), []) == []


def test_after_flush_nothing_can_be_pushed() -> None:
    assembler = WindowAssembler(BOTH, live=False)
    assembler.flush()
    assert assembler.flush() == []
    with pytest.raises(ValueError, match="after flush"):
        assembler.push(Camera().frame(0))


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


def test_an_endless_gap_makes_a_minute_at_most() -> None:
    assembler = WindowAssembler(SOUND, live=True)
    windows = assembler.push(Gap(sense="audio", cause="microphone lost", start_s=0, duration_s=1e12))
    assert len(windows) == 60
    assert all(causes(window) == [("audio", "microphone lost")] for window in windows)


def test_sound_from_before_the_start_is_dropped_without_a_gap() -> None:
    assembler = WindowAssembler(SOUND, live=False)
    windows = run(assembler, [samples(-0.064, numbered(0, 1_024)), samples(0, numbered(1_024, 16_000))])
    assert numbers(windows[0])[1][0] == 1_024
    assert windows[0].gaps == ()
    assert assembler.counts.samples_dropped == {"before the start": 1_024}


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="vision and audio"):
        WindowAssembler(frozenset(), live=True)
    with pytest.raises(UsageError, match="patience_s is -1"):
        WindowAssembler(BOTH, live=True, patience_s=-1)
    with pytest.raises(MediaError, match="rate of 0 Hz"):
        WindowAssembler(SOUND, live=True).push(
            Samples(time_s=0, captured_s=0, waveform=np.zeros((1, 10), np.float32), rate_hz=0)
        )


def test_memory_is_bounded_by_patience() -> None:
    assembler = WindowAssembler(BOTH, live=True)
    camera = Camera()
    for i in range(600):
        assembler.push(samples(i / 10, numbered(i * 1_600, 1_600)))
        if i < 20:
            assembler.push(camera.frame(i / 10, i))
        assert assembler.counts.samples_pending <= 5 * 16_000
        assert assembler.counts.frames_pending <= 5


def test_a_window_costs_less_than_a_millisecond_beside_the_resampler() -> None:
    block = np.zeros((2, 4_800), np.float32)
    resampler = soxr.ResampleStream(48_000, 16_000, 2, dtype="float32", quality="HQ")
    assembler = WindowAssembler(BOTH, live=True)
    camera = Camera()
    total_s = resample_s = 0.0
    for i in range(600):
        start_s = time.process_time()
        resampler.resample_chunk(np.ascontiguousarray(block.T))
        between_s = time.process_time()
        assembler.push(samples(i / 10, block, 48_000))
        for j in range(3):
            assembler.push(camera.frame(i / 10 + j / 30, i))
        total_s += time.process_time() - between_s
        resample_s += between_s - start_s
    assert (total_s - resample_s) / 60 < 0.003  # 1 ms with room for a busy machine


def test_declared_gaps_stay_known_after_their_windows_are_out() -> None:
    assembler = WindowAssembler(frozenset({"vision", "audio"}), live=False)
    windows = []
    for second in range(30):
        for sense in ("audio", "vision"):
            windows += assembler.push(Gap(sense=sense, cause="truncated", start_s=float(second), duration_s=1.0))
    windows += assembler.flush()
    assert len(windows) == 30
    assert {gap.cause for window in windows for gap in window.gaps} == {"truncated"}


# ---- Notice


@given(
    kinds=st.lists(st.sampled_from(["frame", "sound", "gap", "notice", "notice"]), max_size=60),
    step_s=st.sampled_from([0.1, 0.3, 1.0]),
)
def test_notices_pass_in_order_with_the_next_window_and_change_nothing_else(kinds: list[str], step_s: float) -> None:
    camera = Camera()
    chunks: list[Chunk] = []
    for number, kind in enumerate(kinds):
        time_s = step_s * number
        match kind:
            case "frame":
                chunks.append(camera.frame(time_s, number))
            case "sound":
                chunks.append(samples(time_s, numbered(round(time_s * 16_000), round(step_s * 16_000))))
            case "gap":
                chunks.append(Gap(sense="vision", cause="camera lost", start_s=time_s, duration_s=step_s))
            case _:
                chunks.append(Notice(time_s=time_s, message=str(number)))
    assembler = WindowAssembler(BOTH, live=True)
    windows: list[Window] = []
    waiting: list[Notice] = []
    for chunk in chunks:
        if isinstance(chunk, Notice):
            waiting.append(chunk)
        came = assembler.push(chunk)
        for window in came:
            assert list(window.notices) == waiting, "all that came before it, and nothing else"
            waiting = []
        windows += came
    for window in assembler.flush():
        assert list(window.notices) == waiting
        waiting = []
        windows.append(window)
    assert list(assembler.notices) == waiting, "none is lost at the end"
    silent = run(WindowAssembler(BOTH, live=True), [chunk for chunk in chunks if not isinstance(chunk, Notice)])
    for one, other in zip(windows, silent, strict=True):
        assert (one.gaps, one.captured_s, one.channel) == (other.gaps, other.captured_s, other.channel)
        np.testing.assert_array_equal(one.frame, other.frame)
        np.testing.assert_array_equal(one.waveform, other.waveform)
