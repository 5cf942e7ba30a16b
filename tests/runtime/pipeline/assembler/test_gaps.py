"""What is lost, overlapping, invalid or late: it is placed, and counted by cause."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtime.chunks import SOUND, causes, cut, cut_on, gap_s, max_error_s, numbered, numbers, run, samples

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.types import Chunk, Gap


@settings(max_examples=60, deadline=None)
@given(data=st.data(), live=st.booleans())
def test_lost_and_repeated_stretches_are_placed_and_counted(data: st.DataObject, live: bool) -> None:
    smallest_s = 0.125 if live else 0.045
    at, number, chunks, lost = 0.0, 0, [], 0.0
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(1, 6))):
            n = data.draw(st.integers(100, 8_000))
            # The number gives the true place on the media clock, so a hole skips numbers.
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


def test_a_declared_gap_keeps_its_cause() -> None:
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


def test_jitter_after_a_declared_gap_drops_nothing() -> None:
    chunks: list[Chunk] = [
        samples(0, numbered(0, 16_000)),
        Gap(sense="audio", cause="microphone overflow", start_s=1.0, duration_s=0.005),
        samples(0.99, numbered(16_000, 16_000)),
    ]
    assembler = WindowAssembler(SOUND, live=True)
    windows = run(assembler, chunks)
    assert gap_s(windows) == 0
    assert assembler.counts.samples_used == 32_000


def test_a_gap_of_no_duration_is_counted() -> None:
    reported = Gap(sense="audio", cause="microphone underflow", start_s=0.5, duration_s=0)
    windows = run(WindowAssembler(SOUND, live=True), [samples(0, numbered(0, 8_000)), reported, *cut_on(8_000, 24_000)])
    assert [gap for window in windows for gap in window.gaps] == [reported]


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


def test_declared_gaps_stay_known_after_their_windows_are_out() -> None:
    assembler = WindowAssembler(frozenset({"vision", "audio"}), live=False)
    windows = []
    for second in range(30):
        for sense in ("audio", "vision"):
            windows += assembler.push(Gap(sense=sense, cause="truncated", start_s=float(second), duration_s=1.0))
    windows += assembler.flush()
    assert len(windows) == 30
    assert {gap.cause for window in windows for gap in window.gaps} == {"truncated"}
