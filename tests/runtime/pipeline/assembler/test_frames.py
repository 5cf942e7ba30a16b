"""Which frame a window shows, and for how long."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtime.chunks import BOTH, PICTURE, Camera, causes, cut, gap_s, numbered, run, samples

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.types import Gap


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
def test_every_window_shows_the_frame_that_the_rule_selects(times_s: list[float], live: bool) -> None:
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
