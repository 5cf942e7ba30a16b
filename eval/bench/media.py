"""Windows for measuring, from a recording or a clip of noise, with their decoding times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.random import default_rng

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import RATE_HZ, Window

__all__ = ["NOISE", "decode"]

_KEPT_WINDOWS = 12
_CLIP_S = 12
_CLIP_SIZE = (640, 360)
_CLIP_FPS = 25

NOISE = f"noise, {_CLIP_SIZE[0]} × {_CLIP_SIZE[1]} at {_CLIP_FPS} frames/s"
"""Description of the clip that is used without a recording."""


def decode(media: str | None, count: int, rate_hz: int = RATE_HZ) -> tuple[list[Window], list[float]]:
    """Return a dozen windows, and the decoding and assembly times of up to `count` windows in milliseconds.

    Raises:
        UsageError: `media` is a live stream.
        MediaError: it cannot be read, or is shorter than a window.
    """
    if media is not None:
        return _decode_file(media, count, rate_hz)
    with TemporaryDirectory(prefix="ovavel-bench-") as folder:
        clip = Path(folder) / "noise.mp4"
        _write_noise(clip)
        return _decode_file(str(clip), count, rate_hz)


def _decode_file(path: str, count: int, rate_hz: int) -> tuple[list[Window], list[float]]:
    source = MediaSource(path)
    if source.live:
        source.close()
        raise UsageError(f"{path} is a live stream, which decodes at playback speed; give a recording")
    kept: list[Window] = []
    durations: list[float] = []
    try:
        for window, duration_ms in _timed_windows(source, rate_hz):
            if len(kept) < _KEPT_WINDOWS:
                kept.append(window)
            if duration_ms is not None:
                durations.append(duration_ms)
            if len(durations) == count and len(kept) == min(count, _KEPT_WINDOWS):
                break
    finally:
        source.close()
    if not kept:
        raise MediaError(f"{path} is shorter than one window of a second; give a longer recording")
    return kept, durations or [0.0]


def _timed_windows(source: MediaSource, rate_hz: int) -> Iterator[tuple[Window, float | None]]:
    """Yield windows with their decoding times; None for those completed only at the end of the media."""
    assembler = WindowAssembler(source.senses, live=False, rate_hz=rate_hz, channel="auto")
    begin_s = time.perf_counter()
    for chunk in source.chunks():
        windows = assembler.push(chunk)
        if windows:
            each_ms = (time.perf_counter() - begin_s) * 1e3 / len(windows)
            for window in windows:
                yield window, each_ms
            begin_s = time.perf_counter()
    for window in assembler.flush():
        yield window, None


def _write_noise(path: Path) -> None:
    """Write a clip of moving noise and noisy sound, about as expensive to decode as real media of its size."""
    import av

    random = default_rng(0)
    width, height = _CLIP_SIZE
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=_CLIP_FPS)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=RATE_HZ, layout="stereo")
        picture = np.kron(random.integers(0, 256, (height // 8, width // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for second in range(_CLIP_S):
            for _ in range(_CLIP_FPS):
                picture = np.roll(picture, 3, axis=1)
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            samples = (0.1 * random.standard_normal((2, RATE_HZ))).astype(np.float32)
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            block.sample_rate, block.pts = RATE_HZ, second * RATE_HZ
            container.mux(sound.encode(block))
        for stream in (video, sound):
            container.mux(stream.encode(None))
