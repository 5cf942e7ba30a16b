"""For those who keep the packets of pictures as a source read them, so that nobody opens a camera twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

__all__ = ["OpenTap", "PacketTap"]


class PacketTap(Protocol):
    """Is shown the packets of pictures of one open container."""

    def packet(self, packet: Any) -> None:
        """Take a packet before it is decoded, its times corrected, in the thread that reads the container.

        Keep what it holds, never the packet: PyAV's objects must not outlive their container.
        """

    def placed(self, offset_s: float) -> None:
        """Media time is the time of the packets + `offset_s`. Called by the thread that reads `chunks`."""

    def close(self) -> None:
        """The container is about to close. Called by the thread that reads it."""


OpenTap: TypeAlias = Callable[[Any], PacketTap | None]
"""Called with a stream of pictures that is about to be read, again at each reconnect; None: its packets are not
wanted."""
