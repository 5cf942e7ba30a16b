"""Where pictures and sound come from: cameras, microphones, recordings, streams."""

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
    """What it delivers. A sense left out on purpose is not in it."""
    live: bool
    """True where the newest data wins and old windows may be dropped (and counted); False where every one counts."""
    recorded: bool
    """True where its timestamps were written once and for all, so that playing it again gives the same windows."""
    duration_s: float | None
    """Length of the media where known."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield what arrives until the media ends or `close` is called. Call it once.

        While a device is lost, yields `Gap` chunks as time goes by, so that every second is still accounted for. What
        people should know of it, such as a device that is lost or found again, is a `Notice`.

        Raises:
            MediaError: the media cannot be read (at the first chunk, or further on).
            DeviceError: a device cannot be opened at the start.
        """

    def close(self) -> None:
        """End `chunks` from any thread, within a second, even while a read is blocked. May be called twice."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that knows its content: another session over the same recording then has the same id."""

    def fingerprint(self) -> str | None:
        """A hash of the content; None where it cannot be read twice."""
