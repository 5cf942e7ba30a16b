"""What a capture child receives and what it sends."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.service.link import Array

__all__ = [
    "Begin",
    "Captured",
    "Clip",
    "Cut",
    "Finished",
    "FromChild",
    "Leave",
    "Lost",
    "Opened",
    "Recording",
    "Said",
    "Stop",
    "ToChild",
]


class Recording(Struct, frozen=True, kw_only=True):
    """What is kept in memory for clips."""

    ring_bytes: int
    ring_s: float
    encode: bool
    """Whether pictures are encoded to H.264 even where the camera's own packets could be copied."""
    sound: bool


class Begin(Struct, frozen=True, kw_only=True, tag=True):
    """The first message to the child: what to watch."""

    source: str
    """As in the site file; "@FILE" and "env:NAME" are resolved in the child."""
    microphone: str | None = None
    """As in the site file; None: what `source` sends is heard."""
    loop: bool
    encoders: Encoders
    """How frames and sounds are prepared."""
    child: int = 0
    """Number of the child, so that no clip is asked of one that does not have it."""
    sound: bool = True
    """Whether sound is read at all."""
    spectrum: bool = False
    """Whether windows carry a spectrogram."""
    waveform: bool = False
    """Whether windows carry their sound as it was heard."""
    masks: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Polygons to be covered."""
    recording: Recording | None = None
    """None: nothing is kept for clips."""


class Cut(Struct, frozen=True, kw_only=True, tag=True):
    """Write a clip as soon as its last second is there; a `Clip` answers."""

    event: str
    child: int
    path: str
    """File to write; its folder is made where it is missing."""
    from_s: float
    """Media time of this child."""
    to_s: float


class Stop(Struct, frozen=True, tag=True):
    """Close the source; what it brought is still sent, and clips are still cut."""


class Leave(Struct, frozen=True, kw_only=True, tag=True):
    """End, once the clips that were asked for are written."""

    child: int


ToChild: TypeAlias = Begin | Cut | Stop | Leave


class Opened(Struct, frozen=True, kw_only=True, tag=True):
    """The source is open; windows follow. The moment of media time 0, on two clocks."""

    senses: tuple[str, ...]
    child: int = 0
    """As in `Begin`."""
    monotonic_us: int
    utc_us: int


class Lost(Struct, frozen=True, kw_only=True):
    """A `Gap`."""

    sense: str
    cause: str
    start_s: float
    duration_s: float


class Said(Struct, frozen=True, kw_only=True):
    """A `Notice`, without secrets."""

    time_s: float
    message: str


class Captured(Struct, frozen=True, kw_only=True, tag=True):
    """One window, prepared for the encoders."""

    index: int
    start_s: float
    frame: Array | None
    """Prepared frame; None where nothing was seen."""
    sound: Array | None
    """Prepared second of sound; None where nothing was heard."""
    picture: bytes | None
    """The frame as a small WebP, for people."""
    spectrum: bytes | None = None
    """The sound as a spectrogram, see `spectrum_of`."""
    waveform: Array | None = None
    """(1, n) its first channel as it was heard, where `Begin` asked for it."""
    channel: int | None = None
    """Index in the source of that channel, as `Window.channel`."""
    gaps: tuple[Lost, ...]
    notices: tuple[Said, ...]
    monotonic_us: int
    """Clocks when the window was complete."""
    utc_us: int


class Clip(Struct, frozen=True, kw_only=True, tag=True):
    """A clip was written, or could not be."""

    event: str
    error: str = ""
    """Why it could not be; empty where it was."""
    bytes: int = 0
    sha256: str = ""
    start_s: float = 0.0
    """Media time of its first picture or sound."""
    end_s: float = 0.0
    has_audio: bool = False
    codec: str = ""
    """Of its pictures: h264, hevc, or empty without any."""
    note: str = ""
    """What people should know of it."""


class Finished(Struct, frozen=True, kw_only=True, tag=True):
    """The source has ended: no window follows, but clips may."""

    error: str | None
    """What was wrong, without secrets; None at the end of a file."""


FromChild: TypeAlias = Opened | Captured | Clip | Finished
