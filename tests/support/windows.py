"""Windows as a capture child sends them: seconds of nothing, and the demo's clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.preprocess import preparations
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Samples, Window
from ovavel.service.capture.messages import Captured, Opened
from ovavel.service.link import Array
from ovavel.service.watch.queue import Waiting

START_US = 1_700_000_000_000_000


def clip_after_nothing(clip: str, encoders: Encoders, quiet_s: int) -> list[Captured]:
    """So many seconds of one picture in silence, then `clip`, prepared for `encoders`."""
    prepare = preparations(encoders)
    assembler = WindowAssembler(frozenset({"vision", "audio"}), live=False, rate_hz=16_000)
    windows = [window for chunk in _chunks(Path(clip), quiet_s) for window in assembler.push(chunk)]
    return [_captured(window, prepare) for window in (*windows, *assembler.flush())]


def _chunks(clip: Path, quiet_s: int) -> Iterator[Chunk]:
    scene = np.kron(np.random.default_rng(0).integers(60, 200, (15, 20, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for second in range(quiet_s):
        yield Frame(time_s=second + 0.5, captured_s=0.0, image=lambda: scene)
        yield Samples(time_s=float(second), captured_s=0.0, waveform=np.zeros((1, 16_000), np.float32), rate_hz=16_000)
    with closing(MediaSource(str(clip))) as source:
        for chunk in source.chunks():
            if isinstance(chunk, Frame | Samples):
                yield replace(chunk, time_s=chunk.time_s + quiet_s)


def _captured(window: Window, prepare: dict) -> Captured:  # type: ignore[type-arg]
    frame, sound = window.frame, window.waveform
    at_us = START_US + round((window.start_s + 1) * 1e6)
    return Captured(
        index=window.index,
        start_s=window.start_s,
        frame=None if frame is None else Array.of(prepare["vision"].prepare(frame)),
        sound=None if sound is None else Array.of(prepare["audio"].prepare(sound)),
        waveform=None if sound is None else Array.of(sound[:1]),
        picture=None,
        gaps=(),
        notices=(),
        monotonic_us=at_us,
        utc_us=at_us,
    )


def opened() -> Opened:
    """The run that these windows are of begins."""
    return Opened(senses=("audio", "vision"), monotonic_us=START_US, utc_us=START_US)


def waiting(camera: str, windows: Sequence[Captured]) -> list[Waiting]:
    """As they come from the queue."""
    return [Waiting(camera, each, None) for each in windows]
