"""Sources of video and sound: cameras, microphones, recordings, streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ovavel.runtime.types import Chunk, Sense

__all__ = ["Fingerprinted", "Source"]


class Source(Protocol):
    """Delivers frames and sound on one media clock."""

    name: str
    """What a person would call it: a path, a URL, a device."""
    senses: frozenset[Sense]
    """The senses it delivers, without those disabled by the user."""
    live: bool
    """True if the newest data wins and old windows may be dropped (and counted); False if every window counts."""
    recorded: bool
    """True if its timestamps are fixed, so that playing it again gives the same windows."""
    duration_s: float | None
    """Length of the media, if known."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield what arrives until the media ends or `close` is called. Call it once.

        While a device is lost, yields `Gap` chunks as time goes by, so that every second is still accounted for. What
        people should know of it, such as a device that is lost or found again, is a `Notice`.

        Raises:
            MediaError: the media cannot be read (at the first chunk, or further on).
            DeviceError: a device cannot be opened at the start.
        """

    def close(self) -> None:
        """End `chunks` within a second, from any thread, even while a read is blocked. May be called twice."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that knows its content: another session over the same recording then has the same id."""

    def fingerprint(self) -> str | None:
        """A hash of the content; None where it cannot be read twice."""
