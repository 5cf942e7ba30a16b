"""How long a recording is by its header, and whether its end is missing, also where FFmpeg does not say so."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["header_length_s", "lacks_end"]

SIZED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm", "avi", "wav", "flac", "flv", "asf", "w64", "aiff", "caf"})
"""Containers whose header gives the length; for others FFmpeg guesses it from the bit rate."""
UNKNOWN_WAVE_BYTES = 0x7FFFFFFF - 0xFFFF
"""So much or more is what a WAV file claims to hold if it was written to a pipe."""
_UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)
"""WAV's numbers for samples of a fixed size: integers, floats, A-law, µ-law, and more than two channels or 16 bits."""
_MOST_INDEX = 0.02
"""Of a fragmented MP4 file: an index may follow the last packet."""
_LONGEST_PAGE = 65_307
"""Bytes, in Ogg."""
_SYNC = 0x47
"""First byte of each packet of a transport stream."""
_PACKETS = (188, 192, 204)
"""Bytes from one packet of a transport stream to the next; it has 188 itself."""


def header_length_s(container: InputContainer, streams: Collection[Any], origin_s: float) -> float | None:
    """From `origin_s` to the latest end of `streams`, where the header of their `container` gives it."""
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
    # FFmpeg cuts the lengths in the header of an AVI file to what is there, but not its count of pictures
    counted_s = [float(stream.frames * stream.time_base) - origin_s for stream in streams if stream.type == "video"]
    return max(length_s or 0.0, *counted_s, 0.0) or None


def lacks_end(container: InputContainer, read_to: int) -> bool:
    """Whether a file that holds no length breaks off, or could not be read beyond the byte `read_to`."""
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
    """Whether it is an MP4 file that grew piece by piece: its header counts no packets, and gives no length.

    What comes over a network is none: without a length it would be taken for a live stream.
    """
    streams = (*container.streams.audio, *container.streams.video)
    local_mp4 = container.name.startswith("file:") and "mp4" in container.format.name
    return local_mp4 and not any(stream.frames for stream in streams)


def _path(container: InputContainer) -> Path:
    return Path(container.name.removeprefix("file:"))


def _length_s(container: InputContainer, streams: Collection[Any], origin_s: float) -> float | None:
    """From `origin_s` to the latest end, by FFmpeg."""
    ends = [
        float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        for stream in streams
        if stream.duration is not None
    ]
    if len(ends) == len(streams):
        return max(ends) - origin_s
    if container.duration is None:
        return None
    # Matroska's is the time of the end or the length, depending on who wrote it
    length_s: float = container.duration / 1e6
    return length_s - origin_s if length_s > origin_s > 0 else length_s


def _wave_length_s(path: Path) -> float | None:
    """The length that the header of a WAV file claims, which FFmpeg cuts to what is there; None if it has none."""
    rate = 0  # bytes a second
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
    """Whether the first frame of an MP3 file says how many there are. Of several files in one it counts the first's."""
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
    """Whether the last page in `tail` is not whole, or not the last of its stream."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return True
    table = tail[at + 27 : at + 27 + tail[at + 26]]
    return not tail[at + 5] & 4 or len(tail) < at + 27 + tail[at + 26] + sum(table)


def _transport_stream_breaks_off(tail: bytes) -> bool:
    """Whether the last packet in `tail` is not whole."""
    for size in _PACKETS:
        for last in range(len(tail) - 1, max(4 * size, len(tail) - size) - 1, -1):
            if all(tail[last - n * size] == _SYNC for n in range(5)):
                return len(tail) - last < _PACKETS[0]
    return False
