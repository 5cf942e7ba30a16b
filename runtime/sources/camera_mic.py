"""A camera and a microphone as one source."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import cast

from ovavel.runtime.errors import DeviceError, OvavelError, UsageError
from ovavel.runtime.reporting.redaction import without_secrets
from ovavel.runtime.sources.camera import CameraFeed, Picture
from ovavel.runtime.sources.connection import ASLEEP_S, GAP_EVERY_S, Connection, Feed
from ovavel.runtime.sources.microphone import Block, MicrophoneFeed
from ovavel.runtime.types import Chunk, Frame, Gap, GapCause, Samples, Sense

__all__ = ["CameraMicSource"]

OPEN_S = 10.0
"""Time a device has to deliver data when it is opened."""
CATCH_UP_S = 0.5
"""How long to collect waiting data after a pause (the process was stopped or starved)."""
CLOSE_S = 0.5
"""How long `close` waits for the devices to be released."""
MARGIN_S = 0.5
"""Delay before a gap is declared, because data that arrives later may have been captured earlier."""


@dataclass(slots=True)
class _Channel:
    """One device, and how far its sense is accounted for."""

    sense: Sense
    connection: Connection
    lost_cause: GapCause
    position_s: float = 0.0
    """Media time up to which something was yielded."""
    declared_s: float = 0.0
    """Media time up to which gaps were declared; earlier data is dropped."""

    def gap(self, cause: GapCause, until_s: float) -> Gap:
        """Declare the time from the last yield to `until_s`."""
        start_s = self.position_s
        self.position_s = self.declared_s = max(start_s, until_s)
        return Gap(sense=self.sense, cause=cause, start_s=start_s, duration_s=self.position_s - start_s)


class CameraMicSource:
    """Watches a camera with OpenCV and listens to a microphone with PortAudio, both on the monotonic clock.

    Media time 0 is the moment `chunks` is called; both devices deliver by then. A device that ends, freezes or is
    unplugged is noticed within 3 s and reported as a `Notice`. It is opened again after 1, 2, 4 … at most 10 seconds,
    and the time in between is yielded as gaps ("camera lost", "microphone lost"). Sound that could not be taken in time
    is a gap "microphone overflow". A picture that merely stays the same is not lost.

    Raises:
        UsageError: both are None.
        DeviceError: one cannot be opened; the message names those there are.
        MissingExtraError: OpenCV or sounddevice is not installed.
    """

    def __init__(
        self,
        camera: int | str | None = 0,
        microphone: int | str | None = "default",
        *,
        max_pixels: int | None = None,
    ) -> None:
        """Open both devices; None disables one.

        `camera` is an index, a /dev/video file or a URL; `microphone` an index, a name, a part of one, or "default".
        A camera whose pictures have more than `max_pixels` is refused: `OVAVEL_MAX_PIXELS` or 8192 × 8192 by default.
        """
        self._news: queue.SimpleQueue[tuple[Feed, Block | None]] = queue.SimpleQueue()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._camera, self._microphone, self._max_pixels = camera, microphone, max_pixels
        self._feeds: dict[Sense, Feed] = {}
        if camera is not None:
            self._connect("vision")
        if microphone is not None:
            self._connect("audio")
        if not self._feeds:
            raise UsageError("neither a camera nor a microphone is enabled; disable at most one")
        self.senses: frozenset[Sense] = frozenset(self._feeds)
        self.live = True
        self.recorded = False
        self.duration_s: float | None = None
        self._names = {sense: self._name_of(sense) for sense in self._feeds}
        self.name = " and ".join(self._names.values())
        try:
            for sense, feed in self._feeds.items():
                _wait_for(feed, self._names[sense])
        except BaseException:
            self.close()
            raise

    def chunks(self) -> Iterator[Chunk]:
        """Yield each newest frame, and the sound, until `close` is called. Call it once."""
        begin_s = time.monotonic()
        self._wanted.set()
        causes: dict[Sense, GapCause] = {"vision": GapCause.CAMERA_LOST, "audio": GapCause.MICROPHONE_LOST}
        channels = [self._channel(sense, causes[sense], begin_s) for sense in self._feeds]
        checked_s, awake_s = 0.0, begin_s
        try:
            while not self._stopping.is_set():
                news = list(islice(self._gather(0.1), 1))
                if time.monotonic() - awake_s > ASLEEP_S:
                    yield from self._after_sleep(channels, news, begin_s)
                awake_s = time.monotonic()
                for feed, block in news:
                    for channel in channels:
                        if channel.connection.feed is feed:
                            yield from self._deliver(channel, block, begin_s)
                now_s = time.monotonic()
                if now_s - checked_s < GAP_EVERY_S:
                    continue
                checked_s = now_s
                for channel in channels:
                    channel.connection.check(now_s)
                    yield from channel.connection.notices(now_s - begin_s)
                    until_s = now_s - begin_s - MARGIN_S
                    if channel.connection.lost and until_s > channel.position_s:
                        yield channel.gap(channel.lost_cause, until_s)
        finally:
            self.close()

    def close(self) -> None:
        """End `chunks`, from any thread. A device blocked in its driver is waited for no longer than half a second."""
        self._stopping.set()
        for feed in self._feeds.values():
            feed.stop()
        deadline_s = time.monotonic() + CLOSE_S
        for feed in self._feeds.values():
            feed.ended.wait(max(0.0, deadline_s - time.monotonic()))

    def _gather(self, seconds: float) -> Iterator[tuple[Feed, Block | None]]:
        """Yield everything that arrives within `seconds`."""
        deadline_s = time.monotonic() + seconds
        with suppress(queue.Empty):
            while True:
                yield self._news.get(timeout=max(0.0, deadline_s - time.monotonic()))

    def _after_sleep(
        self, channels: list[_Channel], news: list[tuple[Feed, Block | None]], begin_s: float
    ) -> Iterator[Chunk]:
        """Yield the sound that waited while the process did not run. Frames are lost, and declared beside the sound.

        Frames that arrived afterwards are left in `news`.
        """
        woke_s = time.monotonic() - begin_s
        sees = [channel for channel in channels if channel.sense == "vision"]
        hears = [channel for channel in channels if channel.sense == "audio"]
        for feed, block in [*news, *self._gather(CATCH_UP_S)]:
            if block is None:
                continue
            for channel in hears:
                if channel.connection.feed is feed:
                    yield from _not_seen(sees, min(block.start_s - begin_s, woke_s))
                    yield from self._deliver(channel, block, begin_s)
        yield from _not_seen(sees, woke_s)
        news[:] = [(channel.connection.feed, None) for channel in sees]

    def _deliver(self, channel: _Channel, block: Block | None, begin_s: float) -> Iterator[Chunk]:
        if block is None:
            picture = cast("CameraFeed", channel.connection.feed).take()
            if picture is not None:
                yield from _see(channel, picture, begin_s)
        else:
            cast("MicrophoneFeed", channel.connection.feed).taken(block)
            yield from _hear(channel, block, begin_s)

    def _channel(self, sense: Sense, lost_cause: GapCause, begin_s: float) -> _Channel:
        connection = Connection(self._names[sense], self._feeds[sense], lambda: self._connect(sense), begin_s)
        return _Channel(sense=sense, connection=connection, lost_cause=lost_cause)

    def _connect(self, sense: Sense) -> Feed:
        feed: Feed
        if sense == "vision":
            assert self._camera is not None
            feed = CameraFeed(self._camera, lambda feed: self._news.put((feed, None)), max_pixels=self._max_pixels)
        else:
            assert self._microphone is not None
            feed = MicrophoneFeed(self._microphone, lambda feed, block: self._news.put((feed, block)), self._wanted)
        self._feeds[sense] = feed
        feed.start()
        return feed

    def _name_of(self, sense: Sense) -> str:
        return f"camera {without_secrets(str(self._camera))}" if sense == "vision" else f"microphone {self._microphone}"


def _not_seen(channels: list[_Channel], until_s: float) -> Iterator[Gap]:
    for channel in channels:
        if until_s - channel.position_s > 0:
            yield channel.gap(GapCause.PROCESS_NOT_RUNNING, until_s)


def _see(channel: _Channel, picture: Picture, begin_s: float) -> Iterator[Chunk]:
    time_s = picture.captured_s - begin_s
    if channel.connection.arrived(time.monotonic()) and time_s > channel.position_s:
        yield channel.gap(channel.lost_cause, time_s)
    yield from channel.connection.notices(time_s)
    if time_s >= channel.declared_s:
        channel.position_s = time_s
        yield Frame(time_s=time_s, captured_s=picture.captured_s, image=picture.image)


def _hear(channel: _Channel, block: Block, begin_s: float) -> Iterator[Chunk]:
    time_s, waveform = block.start_s - begin_s, block.waveform
    back = channel.connection.arrived(time.monotonic())
    if back and time_s > channel.position_s:
        yield channel.gap(channel.lost_cause, time_s)
    elif block.overflow:
        yield channel.gap(GapCause.MICROPHONE_OVERFLOW, time_s)
    yield from channel.connection.notices(time_s)
    early = round((channel.declared_s - time_s) * block.rate_hz)
    if early > 0:
        waveform, time_s = waveform[:, early:], time_s + early / block.rate_hz
    time_s = max(time_s, channel.declared_s)
    if waveform.shape[1]:
        channel.position_s = time_s + waveform.shape[1] / block.rate_hz
        yield Samples(time_s=time_s, captured_s=block.arrived_s, waveform=waveform, rate_hz=block.rate_hz)


def _wait_for(feed: Feed, name: str) -> None:
    """Wait until `feed` delivers data. Raises DeviceError or MissingExtraError if it does not."""
    if not feed.opened.wait(OPEN_S):
        raise DeviceError(f"{name} was opened but delivered nothing for {OPEN_S:g} s; is it switched on?")
    if isinstance(feed.error, OvavelError):
        raise feed.error
    if feed.error is not None:
        raise DeviceError(f"{name} cannot be opened: {feed.why}")
