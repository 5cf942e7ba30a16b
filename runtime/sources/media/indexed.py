"""Packet times from the index of an AVI file.

An AVI file has no timestamps: FFmpeg counts packets, so everything after a damaged section comes too early by the
missing packets. It also counts a large AAC packet twice. The index at the end of the file gives each packet's position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["IndexedTimes"]

_HEADER = 8
"""Header bytes before each packet."""
_LIKELY = 0.9
"""Minimum share of the stream that an index must cover; otherwise it uses another unit or is incomplete."""


class IndexedTimes:
    """Corrects the times of packets that FFmpeg miscounted."""

    def __init__(self, container: InputContainer, streams: Iterable[Any]) -> None:
        """Read the index of each of `streams`; only AVI needs it."""
        is_avi = container.format.name == "avi"
        self._streams = {stream.index: _Stream(_ticks_by_position(stream) if is_avi else {}) for stream in streams}

    def correct(self, packet: Any) -> bool:
        """Set the times of `packet` from the index by its position; False if the index has no such packet.

        Damaged data may look like a packet.
        """
        stream = self._streams[packet.stream.index]
        if not stream.ticks or not packet.size or packet.pos is None or packet.dts is None:
            return True
        ticks = stream.ticks.get(packet.pos)
        if ticks is not None:
            stream.shift = ticks - packet.dts
        elif packet.pos != stream.end:  # uncompressed sound is read in parts
            return False
        stream.end = packet.pos + packet.size
        packet.dts += stream.shift
        if packet.pts is not None:
            packet.pts += stream.shift
        return True


@dataclass
class _Stream:
    ticks: dict[int, int]
    """Time of each packet by its byte offset in the file."""
    shift: int = 0
    end: int = -1
    """End of the last packet."""


def _ticks_by_position(stream: Any) -> dict[int, int]:
    """Return the time of each packet, in the stream's time base, by its byte offset in the file."""
    context = stream.codec_context
    # for uncompressed sound, the index counts bytes
    pcm = stream.type == "audio" and context.name.startswith("pcm_")
    unit = max(1, context.channels * context.format.bytes) if pcm else 1
    counted = context.name == "aac"
    ticks = {
        entry.pos + _HEADER: number if counted else entry.timestamp // unit
        for number, entry in enumerate(stream.index_entries)
    }
    length = stream.duration or stream.frames
    return ticks if ticks and _LIKELY * length <= max(ticks.values()) <= length else {}
