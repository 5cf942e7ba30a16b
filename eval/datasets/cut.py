"""Windows of a recording, and ten seconds of a raw video, cut as in live use (docs/method.md, Segment).

Shapes: H, W frame height and width; C channels; T seconds of a clip (10).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ovavel.eval.datasets.clip_media import SEGMENTS, DamagedClip
from ovavel.runtime.errors import MediaError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import RATE_HZ, Gap, GapCause, Window

__all__ = ["cut_windows", "read_windows", "with_both_senses"]


def read_windows(path: Path, channel: Channel = "auto", *, rate_hz: int = RATE_HZ) -> Iterator[Window]:
    """Decode `path` from its first second to its last.

    `channel` is the one of the sound to listen to, and `rate_hz` the sample rate of the windows.

    Raises:
        MediaError: it cannot be read.
    """
    source = MediaSource(path)
    try:
        assembler = WindowAssembler(source.senses, live=False, rate_hz=rate_hz, channel=channel)
        for chunk in source.chunks():
            yield from assembler.push(chunk)
        yield from assembler.flush()
    finally:
        source.close()


class _Reading:
    """A video read forwards once, with its latest ten seconds at hand."""

    def __init__(self, video: Path, rate_hz: int) -> None:
        self.of = video, rate_hz
        self.latest: deque[Window] = deque(maxlen=SEGMENTS)
        self._windows = _windows(video, rate_hz)

    @property
    def next_s(self) -> int:
        """The second that comes next."""
        return self.latest[-1].index + 1 if self.latest else 0

    def has(self, start_s: int) -> bool:
        """Whether the video can still give the seconds from `start_s` on."""
        return start_s >= (self.latest[0].index if self.latest else 0)

    def seconds(self, start_s: int) -> list[Window]:
        """Up to ten seconds from `start_s` on."""
        while self.next_s < start_s + SEGMENTS and (window := next(self._windows, None)):
            self.latest.append(window)
        return [window for window in self.latest if start_s <= window.index < start_s + SEGMENTS]


_open = threading.local()
"""The reading of each thread: windows over one video come one after another, so each thread decodes it at most once."""


def cut_windows(video: Path, start_s: int = 0, rate_hz: int = RATE_HZ) -> list[Window]:
    """Return ten aligned seconds of a video from `start_s` on, each with its middle frame.

    A video that ends before is padded: its last frame stays, without sound, and `Window.gaps` says so.

    Raises:
        DamagedClip: the video is empty, unreadable or shorter than half a second, or has no pictures or no sound.
    """
    reading: _Reading | None = getattr(_open, "reading", None)
    _open.reading = None  # one that fails is not continued
    if reading is None or reading.of != (video, rate_hz) or not reading.has(start_s):
        reading = _Reading(video, rate_hz)
    windows = reading.seconds(start_s)
    if len(windows) == SEGMENTS:
        _open.reading = reading
    if not windows:
        raise DamagedClip("video too short", f"{video} holds {reading.next_s} s, and nothing from {start_s} s on")
    blind = [window for window in windows if window.frame is None]
    if blind:
        causes = ", ".join(sorted({gap.cause for window in blind for gap in window.gaps if gap.sense == "vision"}))
        raise DamagedClip(
            "pictures missing", f"{video} has no picture in {len(blind)} of {len(windows)} seconds ({causes})"
        )
    if all(window.waveform is None for window in windows):
        raise DamagedClip(
            "no sound", f"{video} has a sound track, but no sound from {start_s} to {start_s + SEGMENTS} s"
        )
    windows = [replace(each, index=each.index - start_s, start_s=each.start_s - start_s) for each in windows]
    return windows + [_after(windows[-1], index) for index in range(len(windows), SEGMENTS)]


def with_both_senses(windows: list[Window]) -> list[Window]:
    """Fill seconds without sound with silence, (C, n) zeros."""
    shape = max(window.waveform.shape for window in windows if window.waveform is not None)
    silence = np.zeros(shape, np.float32)
    return [replace(each, waveform=silence) if each.waveform is None else each for each in windows]


def _after(last: Window, index: int) -> Window:
    """A second after the end of the video."""
    vision, audio = (
        Gap(sense=sense, cause=GapCause.END_OF_MEDIA, start_s=float(index), duration_s=1.0)
        for sense in ("vision", "audio")
    )
    return Window(
        index=index, start_s=float(index), frame=last.frame, waveform=None, captured_s=None, gaps=(vision, audio)
    )


def _windows(video: Path, rate_hz: int) -> Iterator[Window]:
    """All seconds of a video; errors of any kind become damage."""
    from av.error import FFmpegError

    try:
        if not video.stat().st_size:
            raise DamagedClip("video empty", f"{video} is empty (0 bytes)")
        source = MediaSource(video)
        try:
            for sense, kind in (("vision", "no pictures"), ("audio", "no sound")):
                if sense not in source.senses:
                    raise DamagedClip(kind, f"{video} has {kind}")
            assembler = WindowAssembler(source.senses, live=False, rate_hz=rate_hz)
            for chunk in source.chunks():
                yield from assembler.push(chunk)
            yield from assembler.flush()
        finally:
            source.close()
    except DamagedClip:
        raise
    except (MediaError, FFmpegError, OSError, ValueError) as error:
        message = str(error) if str(video) in str(error) else f"{video}: {error}"
        raise DamagedClip("video unreadable", message) from error
