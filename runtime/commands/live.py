"""`ovavel live`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import (
    ChannelFlag,
    EconomyOptions,
    EventOptions,
    LiveArchiveOptions,
    Maybe,
    VerifiedEngineOptions,
    parse_channel,
)
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.types import BUFFER, LAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.pipeline.channels import Channel
    from ovavel.runtime.pipeline.tracker import EventRules
    from ovavel.runtime.sinks import Sink
    from ovavel.runtime.sources import Source
    from ovavel.runtime.sources.access import Access

__all__ = ["Live"]


@dataclass(frozen=True, kw_only=True)
class Live:
    """Watch a camera and microphone, a stream or a file, and report events that are both seen and heard.

    Examples:
        ovavel live --bundle imagebind                          # first camera, default microphone
        ovavel live --bundle imagebind --camera 1 --microphone "USB Audio" --jsonl events.jsonl
        ovavel live rtsp://camera.local/stream --bundle imagebind
        ovavel live @address.txt --bundle imagebind     # keeps a password in the URL out of the process list
        ovavel live clip.mp4 --bundle imagebind --realtime
        ovavel live @address.txt --bundle imagebind --archive archive --archive-camera yard

    Ctrl-C stops it: open events are closed and reported, and the exit code is 0. Sound and pictures stay in memory.
    """

    input: Positional[Maybe[str]] = None
    """File or URL (http, https, rtsp, rtsps, rtp, udp, tcp, tls) to watch in place of a camera and a microphone. @FILE
    reads the URL from the first line of a file, env:NAME from an environment variable: other users can see command
    lines."""
    bundle: Maybe[Path] = None
    """Folder written by 'ovavel bundle export'."""
    allow_private: bool = False
    """Allow redirects and playlists of a public URL to lead to addresses of this machine and of local networks."""
    max_pixels: Maybe[Annotated[int, Meta(ge=1, le=2**31 - 1)]] = None
    """Refuse a file, stream or camera whose frames have more pixels; OVAVEL_MAX_PIXELS or 8192 × 8192 by default."""
    realtime: bool = False
    """Play a file at its own speed instead of as fast as possible."""
    camera: Maybe[str] = None
    """Index or URL of the camera, the first one by default; --list-devices shows the choices. @FILE and env:NAME work
    as for a URL."""
    microphone: Maybe[str] = None
    """Index, name or part of the name of the microphone; the system's default one unless given."""
    no_video: bool = False
    """Disable video: every second is background, marked as missing video."""
    no_audio: bool = False
    """Disable audio: every second is background, marked as missing audio."""
    channel: ChannelFlag = "auto"
    engine: VerifiedEngineOptions = field(default_factory=VerifiedEngineOptions)
    """What runs the bundle, and where."""
    lag: Annotated[int, Meta(ge=0, le=BUFFER - 1)] = LAG
    """Seconds of later context, 0 to 9, after which a decision is final. Provisional decisions are shown at once."""
    fusion: Maybe[str] = None
    """Decision rule: how the two similarities of a class become its score. positive: a class with a negative similarity
    in one sense scores 0. published: as in the paper, where two negative similarities multiply to a high score.
    agreement: the class that both senses name. av2a: AV²A. cuerator and temperatures must first be fitted with 'ovavel
    eval calibrate --rule'. The bundle's own by default; with another one there are no probabilities."""
    events: EventOptions = field(default_factory=EventOptions)
    """When an event begins and ends."""
    economy: EconomyOptions = field(default_factory=EconomyOptions)
    """What is left out where nothing happens."""
    archive: LiveArchiveOptions = field(default_factory=LiveArchiveOptions)
    """Keep what was seen and heard, to be searched later."""
    jsonl: Maybe[Path] = None
    """Append every decision and event to this file, one JSON object per line; "-" for standard output."""
    view: Literal["auto", "terminal", "lines", "none"] = "auto"
    """What to show: a live view, plain lines, or nothing; auto is the live view on a terminal, else plain lines."""
    list_devices: bool = False
    """List the cameras and microphones of this machine, and exit."""

    def run(self) -> int:
        """Watch until the source ends or a signal arrives."""
        if self.list_devices:
            return _list_devices()
        if self.bundle is None:
            raise UsageError("which bundle? Give --bundle DIR; 'ovavel bundle export --help' explains how to make one")
        from contextlib import nullcontext

        from ovavel.runtime.pipeline.localizer import check_lag
        from ovavel.runtime.system.native_output import captured_stderr

        check_lag(self.lag)
        channel, rules = parse_channel(self.channel), self.events.rules
        messages: SimpleQueue[str] = SimpleQueue()
        bundle = self.engine.open_bundle(self.bundle)
        # Only sound systems regularly write there.
        with captured_stderr(messages.put) if self.input is None else nullcontext():
            self._watch(bundle, channel, rules, messages)
        return 0

    def _watch(self, bundle: Bundle, channel: Channel, rules: EventRules, messages: SimpleQueue[str]) -> None:
        from contextlib import closing

        from ovavel.runtime.archive.sink import LiveArchiveSink
        from ovavel.runtime.bundle.calibration import OTHER_NAMES
        from ovavel.runtime.run import drive
        from ovavel.runtime.session import Session
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.verification.first_use import changed_since_first_use

        every_picture = "the archive" if self.archive.archive else ""
        economy = self.economy.settings(bundle, self.fusion, every_picture=every_picture)
        source = self._source()
        try:
            self.archive.check(source)
            sinks = self._sinks(messages.put)
            with shown_progress() as progress:
                verified = self.engine.open(bundle, progress)
            with closing(verified.backend):
                writer = self.archive.writer(bundle, verified.backend)
                if changed := changed_since_first_use(bundle, verified.backend.info):
                    messages.put(changed)
                if bundle.manifest.calibration and not bundle.manifest.calibration.fits(bundle.vocabulary):
                    messages.put(OTHER_NAMES)
                session = Session(
                    bundle,
                    source,
                    backend=verified,
                    lag=self.lag,
                    rules=rules,
                    channel=channel,
                    fusion=self.fusion,
                    economy=economy,
                )
                if writer:
                    kept = LiveArchiveSink(writer, verified.backend, lag=self.lag, report=messages.put)
                    sinks.append(kept)
                with session:
                    drive(session, sinks, messages=messages)
        finally:
            source.close()

    def _source(self) -> Source:
        from ovavel.runtime.sources.access import address_of

        if self.no_video and self.no_audio:
            raise UsageError("--no-video and --no-audio together leave nothing to watch; give at most one of them")
        if self.input is not None:
            if self.camera is not None or self.microphone is not None:
                raise UsageError("a file or URL brings its own picture and sound; leave --camera and --microphone out")
            from ovavel.runtime.sources.media.source import MediaSource

            return MediaSource(
                address_of(self.input),
                video=not self.no_video,
                audio=not self.no_audio,
                realtime=self.realtime,
                access=self._access(),
            )
        if self.allow_private:
            raise UsageError("--allow-private is for a file or URL; leave it out with a camera")
        if self.realtime:
            raise UsageError("--realtime is for files: name one; a camera is always live")
        from ovavel.runtime.sources.camera_mic import CameraMicSource
        from ovavel.runtime.sources.devices import index_or_name

        return CameraMicSource(
            camera=None if self.no_video else index_or_name(address_of(self.camera or "0")),
            microphone=None if self.no_audio else index_or_name(self.microphone or "default"),
            max_pixels=self.max_pixels,
        )

    def _access(self) -> Access:
        from ovavel.runtime.sources.access import Access, pixel_limit

        return Access(allow_private=self.allow_private, max_pixels=self.max_pixels or pixel_limit())

    def _sinks(self, report: Callable[[str], None]) -> list[Sink]:
        from ovavel.runtime.sinks.jsonl import JsonlSink
        from ovavel.runtime.sinks.view import open_view

        sinks: list[Sink] = []
        to_stdout = str(self.jsonl) == "-"
        view = "none" if self.view == "auto" and to_stdout else self.view
        if to_stdout and view != "none":
            raise UsageError(f"--jsonl - and --view {view} both want standard output; use --view none or give a file")
        if view != "none":
            sinks.append(open_view(view))
        if self.jsonl is not None:
            sinks.append(JsonlSink(self.jsonl, listener=report))
        return sinks


def _list_devices() -> int:
    from ovavel.runtime.sources.devices import list_devices

    print(list_devices())
    return 0
