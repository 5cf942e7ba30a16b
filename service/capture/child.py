"""The capture child, `python -m ovavel.service.capture.child FD`: reads a source until it or the service ends."""

from __future__ import annotations

import io
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.preprocess import Preparation, preparations
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources import Source
from ovavel.runtime.sources.access import address_of
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Gap, Sense, Window
from ovavel.service.capture.messages import Begin, Captured, Finished, Lost, Opened, Said
from ovavel.service.link import Array, Child, Link, LinkClosed

__all__ = ["LoopedSource", "main", "small_picture"]

_US = 1_000_000
_PICTURE_SIDE = 640


class LoopedSource:
    """Plays a file at its own speed again and again, as a camera that is always there."""

    live: bool = True
    recorded: bool = False
    duration_s: float | None = None

    def __init__(self, path: str) -> None:
        """Open the file once, so that one that cannot be read fails here. Raises as `MediaSource`."""
        self._path = path
        self._source = MediaSource(path, realtime=True)
        self.name, self.senses = self._source.name, self._source.senses
        self._closed = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """Yield what the file holds, each round after the one before, from a full second on."""
        offset_s = 0.0
        while not self._closed.is_set():
            for chunk in self._source.chunks():
                yield _later(chunk, offset_s)
            end_s = offset_s + (self._source.duration_s or 0.0)
            self._source.close()
            if self._closed.is_set() or end_s <= offset_s:
                return
            offset_s = float(math.ceil(end_s))
            self._source = MediaSource(self._path, realtime=True)

    def close(self) -> None:
        """End `chunks` within a second."""
        self._closed.set()
        self._source.close()


def _later(chunk: Chunk, by_s: float) -> Chunk:
    if isinstance(chunk, Gap):
        return replace(chunk, start_s=chunk.start_s + by_s)
    return replace(chunk, time_s=chunk.time_s + by_s)


def main(descriptor: str) -> int:
    """Watch what the service says over the link with this descriptor."""
    link = Child.inherited(descriptor)
    try:
        begin: Begin = link.receive(Begin)
        try:
            address = address_of(begin.source)
            source: Source = LoopedSource(address) if begin.loop else MediaSource(address, realtime=True)
        except OvavelError as error:
            link.send(Finished(error=redacted(str(error))))
            return 0
        with closing(source):
            threading.Thread(target=_close_with, args=(link, source), daemon=True).start()
            link.send(Finished(error=_watch(link, source, begin)))
    except LinkClosed:
        pass  # the service is gone, and there is nobody to report to
    return 0


def _watch(link: Link, source: Source, begin: Begin) -> str | None:
    """Send each window; returns why the source ended early, if it did."""
    prepare = preparations(begin.encoders)
    assembler = WindowAssembler(source.senses, live=not source.recorded, rate_hz=prepare["audio"].rate_hz)
    monotonic_us, utc_us = _clocks()
    link.send(Opened(senses=tuple(sorted(source.senses)), monotonic_us=monotonic_us, utc_us=utc_us))
    error = None
    try:
        for chunk in source.chunks():
            for window in assembler.push(chunk):
                link.send(_captured(window, prepare))
    except OvavelError as found:
        error = redacted(str(found))
    for window in assembler.flush():
        link.send(_captured(window, prepare))
    return error


def _captured(window: Window, prepare: Mapping[Sense, Preparation]) -> Captured:
    monotonic_us, utc_us = _clocks()
    frame, sound = window.frame, window.waveform
    return Captured(
        index=window.index,
        start_s=window.start_s,
        frame=None if frame is None else Array.of(prepare["vision"].prepare(frame)),
        sound=None if sound is None else Array.of(prepare["audio"].prepare(sound)),
        picture=None if frame is None else small_picture(frame),
        gaps=tuple(
            Lost(sense=gap.sense, cause=gap.cause, start_s=gap.start_s, duration_s=gap.duration_s)
            for gap in window.gaps
        ),
        notices=tuple(Said(time_s=each.time_s, message=redacted(each.message)) for each in window.notices),
        monotonic_us=monotonic_us,
        utc_us=utc_us,
    )


def small_picture(frame: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB → WebP of at most 640 pixels on the longer side."""
    picture = Image.fromarray(frame)
    picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=75, method=0)
    return out.getvalue()


def _clocks() -> tuple[int, int]:
    return time.monotonic_ns() // 1000, time.time_ns() // 1000


def _close_with(link: Link, source: Source) -> None:
    """The service sends nothing more; when its end closes, the source ends."""
    try:
        link.receive(Begin)
    except LinkClosed:
        source.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
