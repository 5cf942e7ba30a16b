"""Where media ends, and what comes out then."""

from __future__ import annotations

import itertools

import pytest
from support.runtime.chunks import BOTH, PICTURE, SOUND, Camera, causes, cut, numbered, run, samples

from ovavel.runtime.pipeline.assembler import WindowAssembler


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
