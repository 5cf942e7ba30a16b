"""Makes clips with PyAV, so that no test needs a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

COLOURS = [(220, 30, 30), (30, 200, 40), (40, 50, 220), (230, 220, 40), (200, 60, 200), (40, 210, 210)]
"""RGB of second 0, 1, 2 …"""


def tone(duration_s: float, rate_hz: int, *, channels: int = 1, frequency_hz: float = 440.0) -> NDArray[np.float32]:
    """(channels, n) float32, half of full scale."""
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate_hz)) / rate_hz)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def colour_of_second(time_s: float) -> tuple[int, int, int]:
    """Colour that `make_clip` shows at `time_s`."""
    return COLOURS[int(time_s) % len(COLOURS)]


def plain_picture(time_s: float, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of one colour a second."""
    return np.full((height, width, 3), colour_of_second(time_s), np.uint8)


def make_clip(
    path: Path,
    *,
    duration_s: float = 3.0,
    video: bool = True,
    audio: bool = True,
    fps: float = 25,
    times_s: Sequence[float] | None = None,
    picture: Callable[[float], NDArray[np.uint8]] = plain_picture,
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    waveform: NDArray[Any] | None = None,
    rate_hz: int = 16_000,
    audio_codec: str = "aac",
    audio_format: str = "fltp",
    layout: str | None = None,
    video_stamps: Callable[[float], float] = lambda time_s: time_s,
    audio_stamps: Callable[[float], float] = lambda time_s: time_s,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip: frames at `times_s` (or `fps`), a tone or `waveform` (channels, n), in the order of time.

    `video_stamps` and `audio_stamps` turn true times into the timestamps written, to make broken clocks.

    Many parameters: everything that may be odd about a file, each with a default; a test names the one it is about.
    """
    container = av.open(str(path), "w", options=options or {})
    jobs: list[tuple[float, Any, Any]] = []
    if video:
        jobs += _video_jobs(container, duration_s, fps, times_s, picture, codec, pixel_format, rotation, video_stamps)
    if audio:
        waveform = tone(duration_s, rate_hz) if waveform is None else waveform
        jobs += _audio_jobs(container, waveform, rate_hz, audio_codec, audio_format, layout, audio_stamps)
    for _, stream, frame in sorted(jobs, key=lambda job: job[0]):
        for packet in stream.encode(frame()):
            container.mux(packet)
    for stream in container.streams:
        for packet in stream.encode(None):  # type: ignore[attr-defined]
            container.mux(packet)
    container.close()
    return path


def _video_jobs(
    container: Any,
    duration_s: float,
    fps: float,
    times_s: Sequence[float] | None,
    picture: Callable[[float], NDArray[np.uint8]],
    codec: str,
    pixel_format: str,
    rotation: int,
    stamps: Callable[[float], float],
) -> list[tuple[float, Any, Any]]:
    """Many parameters: those of `make_clip` about pictures."""
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
    height, width = picture(0.0).shape[:2]
    stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
    if codec not in ("mjpeg", "mpeg2video"):
        stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.max_b_frames = 0
    if rotation:
        stream.set_display_rotation(rotation)

    # one for all: a frame's own has a thread for each core
    reformatter = VideoReformatter()

    def frame(time_s: float) -> Any:
        made = av.VideoFrame.from_ndarray(picture(time_s), format="rgb24")
        made = reformatter.reformat(made, format=pixel_format, threads=1)
        made.pts, made.time_base = round(stamps(time_s) * 1000), Fraction(1, 1000)
        return made

    times_s = times_s if times_s is not None else [index / fps for index in range(round(duration_s * fps))]
    return [(time_s, stream, lambda time_s=time_s: frame(time_s)) for time_s in times_s]


def _audio_jobs(
    container: Any,
    waveform: NDArray[Any],
    rate_hz: int,
    codec: str,
    sample_format: str,
    layout: str | None,
    stamps: Callable[[float], float],
) -> list[tuple[float, Any, Any]]:
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[waveform.shape[0]]
    stream = container.add_stream(codec, rate=rate_hz, layout=layout, format=sample_format)
    size = 1024

    def frame(start: int) -> Any:
        block = waveform[:, start : start + size]
        if not sample_format.endswith("p"):
            block = block.T.reshape(1, -1)
        made = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=sample_format, layout=layout)
        made.sample_rate, made.time_base = rate_hz, Fraction(1, rate_hz)
        made.pts = round(stamps(start / rate_hz) * rate_hz)
        return made

    starts = range(0, waveform.shape[1], size)
    return [(start / rate_hz, stream, lambda start=start: frame(start)) for start in starts]
