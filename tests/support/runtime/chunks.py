"""Streams whose every sample and frame shows its own time, and the windows made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.assembler import AssemblerCounts, WindowAssembler
from ovavel.runtime.types import Chunk, Frame, Samples, Sense, Window

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


def cut_on(first: int, n: int) -> list[Samples]:
    return [samples(first / 16_000, numbered(first, n))]
