"""The packets of a clip, round after round, at the speed of the clip."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Piece", "paced", "pieces"]


class Piece(NamedTuple):
    """One packet, copied: PyAV's own must not outlive their container."""

    kind: Literal["video", "audio"]
    time_s: float
    """When it is shown or heard, from the first piece on."""
    decode_s: float
    """When it is decoded, which is when it is sent."""
    key: bool
    data: bytes


def pieces(clip: Path, start_s: float) -> Iterator[Piece]:
    """Yield what the clip holds from the key frame before `start_s` to the end, then all of it again and again."""
    import av

    offset_s = None
    while True:
        with av.open(str(clip)) as container:
            length_s = (container.duration or 0) / av.time_base
            container.seek(round(start_s * av.time_base))
            for packet in container.demux(container.streams.video[0], container.streams.audio[0]):
                if packet.pts is None or packet.dts is None or packet.time_base is None:
                    continue  # the empty packet at the end
                kind: Literal["video", "audio"] = "video" if packet.stream.type == "video" else "audio"
                time_s, decode_s = float(packet.pts * packet.time_base), float(packet.dts * packet.time_base)
                if offset_s is None:
                    if kind != "video":
                        continue  # sound of before the first picture
                    offset_s = -time_s
                if time_s + offset_s >= 0 and time_s >= 0:  # not the encoder's run-in
                    yield Piece(kind, time_s + offset_s, decode_s + offset_s, packet.is_keyframe, bytes(packet))
        offset_s, start_s = (offset_s or 0.0) + length_s, 0.0


def paced(source: Iterator[Piece], stop: threading.Event) -> Iterator[Piece]:
    """Yield each piece when it is due, until `stop` is set."""
    begin_s = time.monotonic()
    for piece in source:
        if stop.wait(max(0.0, begin_s + piece.decode_s - time.monotonic())):
            return
        yield piece
