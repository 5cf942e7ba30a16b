"""Recordings that flash and beep at every full second: so it can be measured whether picture and sound are together."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

LENGTH_S = 0.12
"""Of a flash and of a beep."""


def make_flashes(
    path: Path,
    *,
    duration_s: float = 8,
    size: tuple[int, int] = (160, 120),
    fps: int = 25,
    codec: str = "libx264",
    group_s: float = 1,
    b_frames: int = 2,
    audio_codec: str | None = "aac",
    rate_hz: int = 16_000,
    container_format: str | None = None,
) -> Path:
    """Write a recording. Many parameters: what may be odd about one, each with a default."""
    container = av.open(str(path), "w", format=container_format)
    video: Any = container.add_stream(codec, rate=fps)
    video.width, video.height = size
    video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    video.gop_size = round(group_s * fps)
    video.codec_context.thread_count = 1
    if codec != "mjpeg":
        video.max_b_frames = b_frames
    if codec == "libx265":
        video.options = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
    audio: Any = container.add_stream(audio_codec, rate=rate_hz, layout="mono") if audio_codec else None
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave = np.where(time_s % 1 < LENGTH_S, 0.6 * np.sin(2 * np.pi * 1000 * time_s), 0).astype(np.float32)
    for index in range(round(duration_s * fps)):
        bright = index / fps % 1 < LENGTH_S
        frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 255 * bright, np.uint8), format="rgb24")
        frame = frame.reformat(format=video.pix_fmt)
        frame.pts, frame.time_base = index, Fraction(1, fps)
        for packet in video.encode(frame):
            container.mux(packet)
        if audio is not None:
            _sound(
                container, audio, wave[round(index * rate_hz / fps) : round((index + 1) * rate_hz / fps)], index / fps
            )
    for stream in (video, audio):
        for packet in stream.encode(None) if stream is not None else ():
            container.mux(packet)
    container.close()
    return path


def _sound(container: Any, audio: Any, wave: np.ndarray, time_s: float) -> None:
    block = (wave * 32767).astype(np.int16)[None] if audio.codec_context.format.name == "s16" else wave[None]
    frame = av.AudioFrame.from_ndarray(block, format=audio.codec_context.format.name, layout="mono")
    frame.sample_rate = audio.rate
    frame.pts, frame.time_base = round(time_s * audio.rate), Fraction(1, audio.rate)
    for packet in audio.encode(frame):
        container.mux(packet)


@dataclass(frozen=True)
class Watched:
    """A clip as a player has it."""

    codecs: tuple[str, ...]
    first_key: bool
    pictures: int
    size: tuple[int, int]
    duration_s: float
    flashes_s: tuple[float, ...]
    """When pictures turn bright."""
    beeps_s: tuple[float, ...]
    """When the sound begins."""
    steps_s: tuple[float, ...]
    """From each picture to the next."""
    mean: np.ndarray
    """(H, W) mean brightness."""

    @property
    def apart_s(self) -> float:
        """How far the sound is from its picture at most."""
        pairs = [min(self.beeps_s, key=lambda beep: abs(beep - flash)) - flash for flash in self.flashes_s]
        return max(abs(each) for each in pairs)


def watch(path: Path) -> Watched:
    """Decode all of a clip; an error of the decoder is an error here."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        container.streams.video[0].codec_context.thread_count = 1
        shown: list[tuple[float, np.ndarray]] = []
        heard: list[tuple[float, np.ndarray]] = []
        keys: list[bool] = []
        for packet in container.demux():
            if packet.stream.type == "video" and packet.size:
                keys.append(packet.is_keyframe)
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    assert not frame.is_corrupt
                    shown.append((float(frame.time), frame.to_ndarray(format="gray")))
                else:
                    assert isinstance(frame, av.AudioFrame)
                    heard.append((float(frame.time), np.abs(frame.to_ndarray().reshape(-1))))
        codecs = tuple(stream.codec_context.name for stream in container.streams)
        duration_s = float(container.duration or 0) / 1e6
        rate_hz = container.streams.audio[0].rate if container.streams.audio else 1
    bright = [(time_s, picture.mean() > 128) for time_s, picture in shown]
    loud: list[float] = []
    last_s = -1.0
    for start_s, block in heard:
        for index in np.nonzero(block > 0.2)[0]:
            time_s = start_s + index / rate_hz
            if time_s - last_s > 0.5:
                loud.append(time_s)
            last_s = time_s
    return Watched(
        codecs=codecs,
        first_key=keys[0],
        pictures=len(shown),
        size=(shown[0][1].shape[1], shown[0][1].shape[0]),
        duration_s=duration_s,
        flashes_s=tuple(b[0] for a, b in pairwise(bright) if b[1] and not a[1]),
        beeps_s=tuple(loud),
        steps_s=tuple(b[0] - a[0] for a, b in pairwise(shown)),
        mean=np.mean([picture for _, picture in shown], axis=0),
    )
