"""Length of a recording from its header, and whether its end is missing, also where FFmpeg does not report it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["header_length_s", "lacks_end"]

SIZED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm", "avi", "wav", "flac", "flv", "asf", "w64", "aiff", "caf"})
"""Containers with the length in the header; for others FFmpeg estimates it from the bit rate."""
UNKNOWN_WAVE_BYTES = 0x7FFFFFFF - 0xFFFF
"""A WAV file that was written to a pipe claims at least this size."""
_UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)
"""WAV format tags with a fixed sample size: integers, floats, A-law, µ-law, and the extensible format."""
_MOST_INDEX = 0.02
"""Largest share of a fragmented MP4 file after its last packet, which may be an index."""
_LONGEST_PAGE = 65_307
"""Largest Ogg page, in bytes."""
_SYNC = 0x47
"""Sync byte of a transport stream packet."""
_PACKETS = (188, 192, 204)
"""Possible strides of transport stream packets in bytes; a packet itself has 188."""


def header_length_s(container: InputContainer, streams: Collection[Any], origin_s: float) -> float | None:
    """Return the length from `origin_s` to the latest end of `streams`, if the header of `container` gives it."""
    name = container.format.name
    if not SIZED_FORMATS & set(name.split(",")) and not (name == "mp3" and _counts_frames(container)):
        return None
    if _is_fragmented(container):
        return None
    if name == "wav" and (wave_s := _wave_length_s(_path(container))) is not None:
        return wave_s
    length_s = _length_s(container, streams, origin_s)
    if name != "avi":
        return length_s
    # FFmpeg limits the lengths in an AVI header to the actual data, but not the frame count
    counted_s = [float(stream.frames * stream.time_base) - origin_s for stream in streams if stream.type == "video"]
    return max(length_s or 0.0, *counted_s, 0.0) or None


def lacks_end(container: InputContainer, read_to: int) -> bool:
    """Whether a file without a length breaks off, or could not be read beyond the byte `read_to`."""
    if _is_fragmented(container):
        return container.size - read_to > container.size * _MOST_INDEX
    kinds = {"ogg": _ogg_breaks_off, "mpegts": _transport_stream_breaks_off}
    breaks_off = kinds.get(container.format.name)
    if breaks_off is None:
        return False
    try:
        with _path(container).open("rb") as file:
            file.seek(max(0, container.size - _LONGEST_PAGE))
            return breaks_off(file.read())
    except OSError:
        return False


def _is_fragmented(container: InputContainer) -> bool:
    """Whether it is a fragmented MP4 file: its header has neither a packet count nor a length.

    Network streams are excluded: without a length they count as live.
    """
    streams = (*container.streams.audio, *container.streams.video)
    local_mp4 = container.name.startswith("file:") and "mp4" in container.format.name
    return local_mp4 and not any(stream.frames for stream in streams)


def _path(container: InputContainer) -> Path:
    return Path(container.name.removeprefix("file:"))


def _length_s(container: InputContainer, streams: Collection[Any], origin_s: float) -> float | None:
    """Return the length from `origin_s` to the latest end according to FFmpeg."""
    ends = [
        float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        for stream in streams
        if stream.duration is not None
    ]
    if len(ends) == len(streams):
        return max(ends) - origin_s
    if container.duration is None:
        return None
    # Matroska stores the end time or the length, depending on the muxer
    length_s: float = container.duration / 1e6
    return length_s - origin_s if length_s > origin_s > 0 else length_s


def _wave_length_s(path: Path) -> float | None:
    """Return the length claimed by a WAV header, which FFmpeg limits to the actual data; None if there is none."""
    rate = 0  # bytes per second
    try:
        with path.open("rb") as file:
            file.seek(12)
            while len(head := file.read(8)) == 8:
                name, size = head[:4], int.from_bytes(head[4:], "little")
                if name == b"data":
                    return size / rate if rate and 0 < size < UNKNOWN_WAVE_BYTES else None
                after = file.tell() + size + size % 2
                if name == b"fmt ":
                    body = file.read(12)
                    kind = int.from_bytes(body[:2], "little")
                    rate = int.from_bytes(body[8:], "little") if kind in _UNCOMPRESSED else 0
                file.seek(after)
    except OSError:
        pass
    return None


def _counts_frames(container: InputContainer) -> bool:
    """Whether an MP3 file starts with a frame count. In concatenated files it only covers the first."""
    try:
        with _path(container).open("rb") as file:
            tag = file.read(10)
            tag_bytes = 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(tag[6:])))
            start = file.seek(tag_bytes if tag.startswith(b"ID3") else 0)
            first = file.read(512)
    except OSError:
        return False
    at = max(first.find(b"Xing"), first.find(b"Info"))
    if at < 0 or len(first) < at + 16 or first[at + 7] & 3 != 3:
        return False
    return container.size - start <= int.from_bytes(first[at + 12 : at + 16]) * 17 / 16


def _ogg_breaks_off(tail: bytes) -> bool:
    """Whether the last page in `tail` is incomplete or not the last of its stream."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return True
    table = tail[at + 27 : at + 27 + tail[at + 26]]
    return not tail[at + 5] & 4 or len(tail) < at + 27 + tail[at + 26] + sum(table)


def _transport_stream_breaks_off(tail: bytes) -> bool:
    """Whether the last packet in `tail` is incomplete."""
    for size in _PACKETS:
        for last in range(len(tail) - 1, max(4 * size, len(tail) - size) - 1, -1):
            if all(tail[last - n * size] == _SYNC for n in range(5)):
                return len(tail) - last < _PACKETS[0]
    return False
