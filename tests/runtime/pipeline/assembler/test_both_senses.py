"""Vision and audio together: when a window comes out, and what it waits for."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtime.chunks import (
    BOTH,
    PICTURE,
    SOUND,
    Camera,
    assert_accounted,
    causes,
    cut,
    cut_on,
    numbered,
    numbers,
    run,
    samples,
)

from ovavel.runtime.errors import MediaError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.types import Chunk, Gap, Notice, Samples, Sense, Window


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


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="vision and audio"):
        WindowAssembler(frozenset(), live=True)
    with pytest.raises(ValueError, match="patience_s is -1"):
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
