"""Times of packets by the index of an AVI file.

An AVI file has no timestamps: FFmpeg counts packets, so whatever follows a damaged stretch comes too early by what is
missing. It also counts two for a large packet of AAC. The index at the end of the file says which packet lies where.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["IndexedTimes"]

_HEADER = 8
"""Bytes before each packet."""
_LIKELY = 0.9
"""An index reaches at least so far, of the length of its stream; else it counts in another unit, or is not whole."""


class IndexedTimes:
    """Corrects the times of packets that FFmpeg has counted wrongly."""

    def __init__(self, container: InputContainer, streams: Iterable[Any]) -> None:
        """Read the index of each of `streams`; other containers than AVI have timestamps."""
        is_avi = container.format.name == "avi"
        self._streams = {stream.index: _Stream(_ticks_by_position(stream) if is_avi else {}) for stream in streams}

    def correct(self, packet: Any) -> bool:
        """Set the times of `packet` to what the index says of its position; False if there is no such packet.

        Noise may look like one.
        """
        stream = self._streams[packet.stream.index]
        if not stream.ticks or not packet.size or packet.pos is None or packet.dts is None:
            return True
        ticks = stream.ticks.get(packet.pos)
        if ticks is not None:
            stream.shift = ticks - packet.dts
        elif packet.pos != stream.end:  # uncompressed sound comes in parts
            return False
        stream.end = packet.pos + packet.size
        packet.dts += stream.shift
        if packet.pts is not None:
            packet.pts += stream.shift
        return True


@dataclass
class _Stream:
    ticks: dict[int, int]
    """Time of each packet by its first byte in the file."""
    shift: int = 0
    end: int = -1
    """After the last packet."""


def _ticks_by_position(stream: Any) -> dict[int, int]:
    """Time of each packet, in units of the stream's time base, by its first byte in the file."""
    context = stream.codec_context
    # of uncompressed sound, the index counts bytes
    pcm = stream.type == "audio" and context.name.startswith("pcm_")
    unit = max(1, context.channels * context.format.bytes) if pcm else 1
    counted = context.name == "aac"
    ticks = {
        entry.pos + _HEADER: number if counted else entry.timestamp // unit
        for number, entry in enumerate(stream.index_entries)
    }
    length = stream.duration or stream.frames
    return ticks if ticks and _LIKELY * length <= max(ticks.values()) <= length else {}
