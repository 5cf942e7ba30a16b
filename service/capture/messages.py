"""What a capture child receives and what it sends."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.service.link import Array

__all__ = ["Begin", "Captured", "Finished", "FromChild", "Lost", "Opened", "Said"]


class Begin(Struct, frozen=True, kw_only=True, tag=True):
    """The first message to the child: what to watch."""

    source: str
    """Address or file; "@FILE" and "env:NAME" are resolved in the child."""
    loop: bool
    encoders: Encoders
    """How frames and sounds are prepared."""


class Opened(Struct, frozen=True, kw_only=True, tag=True):
    """The source is open; windows follow. The moment of media time 0, on two clocks."""

    senses: tuple[str, ...]
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
    gaps: tuple[Lost, ...]
    notices: tuple[Said, ...]
    monotonic_us: int
    """Clocks when the window was complete."""
    utc_us: int


class Finished(Struct, frozen=True, kw_only=True, tag=True):
    """The source has ended; the last message."""

    error: str | None
    """What was wrong, without secrets; None at the end of a file."""


FromChild: TypeAlias = Opened | Captured | Finished
