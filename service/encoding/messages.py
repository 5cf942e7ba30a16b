"""What the encoder child is asked and what it answers."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from ovavel.runtime.backends import BackendInfo
from ovavel.service.link import Array

__all__ = ["Answer", "Contexts", "Encode", "Failed", "Head", "Load", "Question", "Ready", "Results"]


class Load(Struct, frozen=True, kw_only=True, tag=True):
    """The first message: what to open."""

    bundle: str
    options: dict[str, Any]
    """Keyword arguments of `open_verified`."""


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The backend is open, verified and warm."""

    info: BackendInfo
    gate: str
    """The comparison that verifies it, in a few words."""


class Encode(Struct, frozen=True, kw_only=True, tag=True):
    """Prepared frames and sounds, (B, …) each, or None."""

    frames: Array | None
    sounds: Array | None


class Head(Struct, frozen=True, kw_only=True, tag=True):
    """What `Backend.head` takes."""

    audio: Array
    vision: Array
    text_audio: Array
    text_vision: Array | None
    """None where one text space serves both senses."""


class Contexts(Struct, frozen=True, kw_only=True, tag=True):
    """What the head makes of segments before any text, (1, T, D) each: its answer to the identity matrix as texts."""

    audio: Array
    vision: Array


class Results(Struct, frozen=True, kw_only=True, tag=True):
    """Arrays, in the order of what was asked."""

    arrays: tuple[Array | None, ...]


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """What was asked could not be done."""

    error: str


Question: TypeAlias = Encode | Head | Contexts
Answer: TypeAlias = Ready | Results | Failed
