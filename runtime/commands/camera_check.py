"""Watch a camera for some seconds, and find what it sends and what keeps events from being found in it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources.access import is_network
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.sources.devices import camera_device, index_or_name
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.sources.track import Track
from ovavel.runtime.types import RATE_HZ, Frame, Gap, GapCause, Notice, Samples, Sense, Window

__all__ = ["CameraReport", "Clock", "Sound", "Video", "check_camera"]

SETTLED_S = 2.0
"""Many cameras first send what they had buffered: delays are measured after that."""
LONG_KEY_S = 4.0
SLOW_HZ = 2.0
"""Pictures per second below which some seconds may have none."""
LATE_S = 1.0
OFF_SPEED = 0.05
SILENT_DB = -70.0
LARGE = 1920 * 1088
COPIED = ("h264", "hevc")
"""Codecs whose packets `ovavel serve` copies into clips."""


class Video(Struct, frozen=True, kw_only=True):
    """The pictures."""

    codec: str
    """Empty for a camera of this machine, and for one that is watched with a microphone."""
    width: int
    height: int
    rate_hz: float
    """Pictures that came per second."""
    keyless_s: float | None
    """Longest time without a key frame, which can be shown by itself; None where pictures have no times of their own.
    """
    blank: bool
    """Whether every picture had one color all over."""


class Sound(Struct, frozen=True, kw_only=True):
    """The sound."""

    codec: str
    """Empty for a microphone."""
    rate_hz: int
    channels: int
    peak_db: float | None
    """Loudest sample in decibels of full scale; None where none came, or all were 0."""


class Clock(Struct, frozen=True, kw_only=True):
    """How the camera's time stamps behave."""

    stamped: bool | None
    """Whether pictures carry times; without, they are stamped when they arrive. None: this machine stamps both senses.
    """
    jumps: int
    speed: float | None
    """Seconds of media per second of the wall clock; None for a file, and where too little came to say."""
    late_s: float | None
    """How much later than the quickest data the slowest arrived; None as for `speed`."""


class CameraReport(Struct, frozen=True, kw_only=True):
    """What was found."""

    source: str
    """Address without secrets, path, or names of the devices."""
    works: bool
    """Whether most seconds were whole, so that events can be found."""
    opened_after_s: float
    watched_s: float
    """Of media."""
    video: Video | None
    sound: Sound | None
    clock: Clock
    windows: int
    """Seconds that were assembled."""
    whole: int
    """Of these, how many had a picture and sound without a gap."""
    gaps: dict[str, float]
    """Seconds of picture or sound that were missing, by cause."""
    notices: tuple[str, ...]
    advice: tuple[str, ...]
    """What to change, most important first."""


class _Packets:
    """The tap that counts packets of pictures, and measures the time between key frames."""

    def __init__(self) -> None:
        self.opened = self.count = 0
        self.keyless_s = 0.0
        self._key_s: float | None = None

    def open(self, _stream: Any) -> _Packets:
        self.opened += 1
        self._key_s = None
        return self

    def packet(self, packet: Any) -> None:
        self.count += 1
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return
        time_s = float(stamp * packet.time_base)
        self._key_s = time_s if self._key_s is None else self._key_s
        self.keyless_s = max(self.keyless_s, time_s - self._key_s)
        if packet.is_keyframe:
            self._key_s = time_s

    def placed(self, offset_s: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Watch:
    """What came while the camera was watched."""

    def __init__(self, source: MediaSource | CameraMicSource) -> None:
        self._source = source
        self._assembler = WindowAssembler(source.senses, live=not source.recorded, rate_hz=RATE_HZ)
        self.frames = 0
        self.jumps = 0
        self.end_s = 0.0
        self.windows = self.whole = 0
        self.peak = 0.0
        self.size = (0, 0)
        """Width and height of the newest picture that a window shows."""
        self.format = (0, 0)
        """Samples a second, and channels, of the newest sound."""
        self.seen = self.varied = 0
        """Windows with a picture, and of these those of more than one color."""
        self.gaps: dict[str, float] = {}
        self.notices: list[str] = []
        self.arrivals: list[tuple[float, float]] = []
        """Media time, and when it arrived."""

    def run(self, seconds: float) -> None:
        """Watch for so many seconds: of the wall clock, of a file those of its media."""
        begin_s = time.monotonic()
        # A camera that sends nothing would keep the loop below waiting.
        late = threading.Timer(2 * seconds + 10, self._source.close)
        late.daemon = True
        late.start()
        try:
            for chunk in self._source.chunks():
                self._take(chunk)
                if (self.end_s if self._source.recorded else time.monotonic() - begin_s) >= seconds:
                    return
            self._count(self._assembler.flush())
        finally:
            late.cancel()

    def _take(self, chunk: Frame | Samples | Gap | Notice) -> None:
        if isinstance(chunk, Notice):
            self.notices.append(chunk.message)
        elif isinstance(chunk, Gap):
            self.jumps += chunk.cause is GapCause.TIMESTAMP_JUMP
            self.gaps[chunk.cause.value] = self.gaps.get(chunk.cause.value, 0.0) + chunk.duration_s
            self.end_s = max(self.end_s, chunk.start_s + chunk.duration_s)
        else:
            end_s: float = chunk.time_s
            if isinstance(chunk, Samples):
                self.format = chunk.rate_hz, len(chunk.waveform)
                self.peak = max(self.peak, float(np.abs(chunk.waveform).max(initial=0.0)))
                end_s += float(chunk.waveform.shape[1]) / chunk.rate_hz
            else:
                self.frames += 1
            self.end_s = max(self.end_s, end_s)
            self.arrivals.append((end_s, chunk.captured_s))
        self._count(self._assembler.push(chunk))

    def _count(self, windows: list[Window]) -> None:
        for window in windows:
            self.windows += 1
            # A microphone's clock is never quite this machine's: some milliseconds now and then are no loss.
            missing = [gap for gap in window.gaps if gap.cause is not GapCause.CLOCK_DRIFT]
            self.whole += window.frame is not None and window.waveform is not None and not missing
            if window.frame is not None:
                self.seen += 1
                self.size = window.frame.shape[1], window.frame.shape[0]
                self.varied += bool(window.frame.std(axis=(0, 1)).max() > 1)

    def pace(self) -> tuple[float | None, float | None]:
        """Speed and lateness, see `Clock`."""
        if self._source.recorded or not self.arrivals:
            return None, None
        first_s = self.arrivals[0][1] + SETTLED_S
        media, wall = np.array([each for each in self.arrivals if each[1] >= first_s]).reshape(-1, 2).T
        if len(media) < 2 or wall[-1] - wall[0] < SETTLED_S:
            return None, None
        delays_s = wall - media
        return float(np.polyfit(wall - wall[0], media, 1)[0]), float(delays_s.max() - delays_s.min())


def check_camera(address: str, *, seconds: float, microphone: str | None = None) -> CameraReport:
    """Watch the stream, the file or the camera of this machine at `address` for `seconds`, with that microphone.

    Raises:
        UsageError: the scheme of the address is not supported, or it is a file and there is a microphone.
        MediaError: it cannot be opened or read; the message says why.
        DeviceError: the same of a camera of this machine, or of the microphone.
        MissingExtraError: what opens cameras and microphones is not installed.
    """
    begin_s = time.monotonic()
    packets = _Packets()
    source: MediaSource | CameraMicSource
    if microphone is None and camera_device(address) is None:
        source = MediaSource(address, realtime=False, tap=packets.open)
    elif camera_device(address) is None and not is_network(address):
        raise UsageError("a microphone is for a camera of this machine or an address; a file brings its own sound")
    else:
        source = CameraMicSource(index_or_name(address), None if microphone is None else index_or_name(microphone))
    opened_after_s = time.monotonic() - begin_s
    watch = _Watch(source)
    with closing(source):
        try:
            watch.run(seconds)
        except MediaError as error:
            watch.notices.append(str(error))
    speed, late_s = watch.pace()
    stamped = None if isinstance(source, CameraMicSource) else "vision" not in source.senses or packets.opened > 0
    report = CameraReport(
        source=source.name,
        works=2 * watch.whole > watch.windows,
        opened_after_s=opened_after_s,
        watched_s=watch.end_s,
        video=_video(source, watch, packets),
        sound=_sound(source, watch),
        clock=Clock(stamped=stamped, jumps=watch.jumps, speed=speed, late_s=late_s),
        windows=watch.windows,
        whole=watch.whole,
        gaps=watch.gaps,
        notices=tuple(redacted(each, address) for each in watch.notices),
        advice=(),
    )
    return msgspec.structs.replace(report, advice=tuple(_advice(report)))


def _track(source: MediaSource | CameraMicSource, watch: _Watch, sense: Sense) -> Track | None:
    """What the stream says of `sense`; of devices what came from them."""
    if isinstance(source, MediaSource):
        return source.tracks.get(sense)
    rate_hz, channels = watch.format
    return Track("", size=watch.size, rate_hz=rate_hz, channels=channels) if sense in source.senses else None


def _video(source: MediaSource | CameraMicSource, watch: _Watch, packets: _Packets) -> Video | None:
    track = _track(source, watch, "vision")
    if track is None:
        return None
    return Video(
        codec=track.codec,
        width=track.size[0],
        height=track.size[1],
        rate_hz=(packets.count or watch.frames) / watch.end_s if watch.end_s else 0.0,
        keyless_s=packets.keyless_s if packets.opened else None,
        blank=watch.seen > 0 and watch.varied == 0,
    )


def _sound(source: MediaSource | CameraMicSource, watch: _Watch) -> Sound | None:
    track = _track(source, watch, "audio")
    if track is None:
        return None
    peak_db = 20 * math.log10(watch.peak) if watch.peak > 0 else None
    return Sound(codec=track.codec, rate_hz=track.rate_hz, channels=track.channels, peak_db=peak_db)


def _advice(report: CameraReport) -> Iterator[str]:
    """What to change, most important first."""
    video, sound, clock = report.video, report.sound, report.clock
    if sound is None:
        yield (
            "it sends no sound, so nothing can be both seen and heard: switch audio on in the camera, choose a stream "
            "that has it, or use a microphone of this machine (--microphone default; 'ovavel live --list-devices' "
            "shows them)"
        )
    elif sound.peak_db is None or sound.peak_db < SILENT_DB:
        yield "its sound is silent: is the microphone switched on, and its level above zero?"
    elif sound.rate_hz < RATE_HZ:
        yield (
            f"its sound has {sound.rate_hz} samples a second, so nothing above {sound.rate_hz / 2000:g} kHz is heard: "
            "choose AAC with 16 kHz or more, where the camera has it"
        )
    if video is None:
        yield "it sends no picture, so nothing can be both seen and heard: choose a stream that has one"
        return
    if video.blank:
        yield "every picture has one color all over: is the lens covered, or a privacy mode on?"
    if 0 < video.rate_hz < SLOW_HZ:
        yield f"it sends {video.rate_hz:.1f} pictures a second: set at least 5, or some seconds have none"
    if video.codec and video.codec not in COPIED:
        yield f"its pictures are {video.codec}, which 'ovavel serve' encodes for clips: H.264 saves that work"
    elif video.codec == "hevc":
        yield "many browsers do not play clips of HEVC (H.265): choose H.264, or 'transcode = true' in the site file"
    if video.codec in COPIED and video.keyless_s is not None and video.keyless_s > LONG_KEY_S:
        yield f"no key frame came for {video.keyless_s:.1f} s, and clips begin with one: set an interval of 1 or 2 s"
    if video.width * video.height > LARGE:
        yield (
            f"pictures of {video.width} × {video.height} take long to decode, and no more is recognized in them: "
            "choose a smaller stream (sub-stream), 640 to 1920 pixels wide"
        )
    if clock.jumps:
        yield f"its time stamps jumped {clock.jumps} times: update its firmware, or switch 'smart' codecs (H.264+) off"
    if clock.speed is not None and abs(clock.speed - 1) > OFF_SPEED:
        yield (
            f"its time runs at {clock.speed:.2f} of the wall clock's: seconds are missing on the way, or its clock is "
            "wrong"
        )
    if clock.late_s is not None and clock.late_s > LATE_S:
        yield f"data came up to {clock.late_s:.1f} s late: use a cable rather than wireless, or a lower bit rate"
    if report.gaps.keys() & {GapCause.CAMERA_LOST, GapCause.MICROPHONE_LOST}:
        yield "a device was lost while it was watched: check its cable, and whether the port gives it enough power"
    if GapCause.STREAM_LOST in report.gaps:
        yield "the connection was lost while it was watched: check the network, and how many viewers it allows"
