"""The capture child, `python -m ovavel.service.capture.child FD`: reads a source until it or the service ends."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.preprocess import Preparation, preparations
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources import Source
from ovavel.runtime.sources.access import address_of
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.sources.devices import camera_device, index_or_name
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.sources.packet_tap import OpenTap
from ovavel.runtime.system.native_output import captured_stderr
from ovavel.runtime.types import WINDOW_S, Chunk, Frame, Gap, Notice, Sense, Window
from ovavel.service.capture.masks import Masks, once
from ovavel.service.capture.messages import (
    Begin,
    Captured,
    Clip,
    Cut,
    Finished,
    Leave,
    Lost,
    Opened,
    Said,
    Stop,
    ToChild,
)
from ovavel.service.capture.recorder import Recorder
from ovavel.service.capture.spectrum import spectrum_of
from ovavel.service.config.sources import check_source
from ovavel.service.link import Array, Child, Link, LinkClosed

__all__ = ["LoopedSource", "main", "small_picture"]

_US = 1_000_000
_PICTURE_SIDE = 640


class LoopedSource:
    """Plays a file at its own speed again and again, as a camera that is always there."""

    live: bool = True
    recorded: bool = False
    duration_s: float | None = None

    def __init__(self, path: str, *, audio: bool = True, recorder: Recorder | None = None) -> None:
        """Open the file once, so that one that cannot be read fails here. Raises as `MediaSource`."""
        self._path, self._audio, self._recorder = path, audio, recorder
        self._source = self._opened(0.0)
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
            self._source = self._opened(offset_s)

    def _opened(self, offset_s: float) -> MediaSource:
        tap = partial(self._recorder.tap, shift_s=offset_s) if self._recorder else None
        return MediaSource(self._path, audio=self._audio, realtime=True, tap=tap)

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
        messages: SimpleQueue[str] = SimpleQueue()
        # Sound systems write there whenever they are opened, and the service's log is not theirs.
        with contextlib.nullcontext() if begin.microphone is None else captured_stderr(messages.put):
            _serve(link, begin, messages)
    except LinkClosed:
        pass  # the service is gone, and there is nobody to report to
    return 0


def _serve(link: Link, begin: Begin, messages: SimpleQueue[str]) -> None:
    recorder = None
    if begin.recording:
        recorder = Recorder(begin.recording, partial(_send, link), microphone=begin.microphone is not None)
    try:
        source = _open(begin, recorder)
    except OvavelError as error:
        link.send(Finished(error=redacted(str(error))))
        return
    with closing(source):
        wanted = threading.Event()
        asked = threading.Thread(target=_answer, args=(link, source, recorder, begin.child, wanted), daemon=True)
        asked.start()
        link.send(Finished(error=_watch(link, source, begin, recorder, messages)))
        asked.join()  # clips of its last events are still to be asked for
        if recorder and wanted.is_set():
            recorder.close()


def _open(begin: Begin, recorder: Recorder | None) -> Source:
    address = address_of(begin.source)
    check_source(address, microphone=begin.microphone, sound=begin.sound, loop=begin.loop)
    if begin.microphone is not None or camera_device(address) is not None:
        microphone = begin.microphone if begin.sound else None
        return CameraMicSource(index_or_name(address), None if microphone is None else index_or_name(microphone))
    if begin.loop:
        return LoopedSource(address, audio=begin.sound, recorder=recorder)
    tap: OpenTap | None = recorder.tap if recorder else None
    return MediaSource(address, audio=begin.sound, realtime=True, tap=tap)


def _watch(
    link: Link, source: Source, begin: Begin, recorder: Recorder | None, messages: SimpleQueue[str]
) -> str | None:
    """Send each window; returns why the source ended early, if it did."""
    prepare, masks = preparations(begin.encoders), Masks(begin.masks)
    assembler = WindowAssembler(source.senses, live=not source.recorded, rate_hz=prepare["audio"].rate_hz)
    monotonic_us, utc_us = _clocks()
    senses = tuple(sorted(source.senses))
    link.send(Opened(senses=senses, child=begin.child, monotonic_us=monotonic_us, utc_us=utc_us))
    error, position_s = None, 0.0
    try:
        for chunk in _with_notices(source.chunks(), messages):
            if isinstance(chunk, Frame):
                chunk = replace(chunk, image=once(chunk.image, masks))
            if recorder:
                recorder.chunk(chunk)
            for window in assembler.push(chunk):
                link.send(_captured(window, prepare, begin))
                position_s = window.start_s + WINDOW_S
            if recorder:
                recorder.reached(position_s)
    except OvavelError as found:
        error = redacted(str(found))
    for window in assembler.flush():
        link.send(_captured(window, prepare, begin))
    if recorder:
        recorder.reached(position_s, ended=True)
    return error


def _with_notices(chunks: Iterator[Chunk], messages: SimpleQueue[str]) -> Iterator[Chunk]:
    """`chunks`, and what else there is to be reported as it comes in."""
    for chunk in chunks:
        while not messages.empty():
            time_s = chunk.start_s if isinstance(chunk, Gap) else chunk.time_s
            yield Notice(time_s=time_s, message=messages.get())
        yield chunk


def _captured(window: Window, prepare: Mapping[Sense, Preparation], begin: Begin) -> Captured:
    monotonic_us, utc_us = _clocks()
    frame, sound = window.frame, window.waveform
    return Captured(
        index=window.index,
        start_s=window.start_s,
        frame=None if frame is None else Array.of(prepare["vision"].prepare(frame)),
        sound=None if sound is None else Array.of(prepare["audio"].prepare(sound)),
        picture=None if frame is None else small_picture(frame),
        spectrum=None if sound is None or not begin.spectrum else spectrum_of(sound[0]),
        waveform=None if sound is None or not begin.waveform else Array.of(sound[:1]),
        channel=window.channel,
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


def _send(link: Link, clip: Clip) -> None:
    with contextlib.suppress(LinkClosed):  # whoever asked is gone
        link.send(clip)


def _answer(link: Link, source: Source, recorder: Recorder | None, child: int, wanted: threading.Event) -> None:
    """Do what the service asks for; when its end of the link closes, the source ends.

    `wanted` is set where the service waits for the clips that it asked for.
    """
    try:
        while True:
            message: Cut | Stop | Leave = link.receive(ToChild)
            if isinstance(message, Leave) and message.child == child:
                break
            if isinstance(message, Stop):
                source.close()
            elif isinstance(message, Cut) and recorder and message.child == child:
                recorder.cut(message)
            elif isinstance(message, Cut):
                _send(link, Clip(event=message.event, error="another process captured it, which has ended"))
        wanted.set()
    except LinkClosed:
        pass
    finally:
        source.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
