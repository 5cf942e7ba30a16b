"""What a packet of H.264 or HEVC holds, in the form of Annex B: units that each follow a start code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["CODECS", "Content", "content_of"]

_START = b"\0\0\1"
_SETS = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}
"""Kinds of units that say how pictures are coded."""
_SLICES = {"h264": range(1, 6), "hevc": range(32)}
"""Kinds of units that are pictures."""
CODECS = frozenset(_SETS)
"""Those that can be copied into a clip."""


class Content(NamedTuple):
    """What precedes the picture in a packet."""

    head: bytes
    """Parameter sets, one after the other."""
    picture: bool
    """Whether there is a picture."""


def content_of(data: bytes, codec: str) -> Content:
    """What `data` holds up to its picture."""
    head = b""
    for begin, end in _units(data):
        kind = data[begin] & 0x1F if codec == "h264" else data[begin] >> 1 & 0x3F
        if kind in _SLICES[codec]:
            return Content(head, picture=True)
        if kind in _SETS[codec]:
            head += _START + data[begin:end].rstrip(b"\0")
    return Content(head, picture=False)


def _units(data: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each unit that has a byte at least."""
    begin = data.find(_START)
    while begin >= 0:
        begin += len(_START)
        end = data.find(_START, begin)
        if begin < len(data) and end != begin:
            yield begin, len(data) if end < 0 else end
        begin = end
