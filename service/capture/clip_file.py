"""Writes a clip: MP4 as browsers play it, its index first."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovavel.service.capture.ring import Cutting
from ovavel.service.capture.sound import SoundFormat

if TYPE_CHECKING:
    from av.container import OutputContainer

__all__ = ["write_clip"]

_TICKS = 90_000
_BASE = Fraction(1, _TICKS)


def write_clip(path: Path, cutting: Cutting, sound: SoundFormat | None) -> None:
    """Write `cutting` to the file `path`, whose sound is in the format `sound`.

    Raises:
        OSError, av.error.FFmpegError: it cannot be written.
    """
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        pictures = _picture_stream(container, cutting) if cutting.pictures else None
        sounds: Any = None
        if cutting.sounds and sound is not None:
            sounds = container.add_stream("aac", rate=sound.rate_hz, layout=sound.layout, bit_rate=sound.bit_rate)
        for stream, packet in sorted(
            [*_pictures(cutting, pictures), *_sounds(cutting, sounds, sound)], key=lambda each: _time_s(each[1])
        ):
            packet.stream = stream
            container.mux(packet)


def _picture_stream(container: OutputContainer, cutting: Cutting) -> Any:
    """A stream described by the first picture, which carries its parameter sets."""
    import av

    with av.open(io.BytesIO(cutting.pictures[0].data), format=cutting.codec) as first:
        stream: Any = container.add_stream_from_template(first.streams.video[0])
    stream.time_base = _BASE
    if cutting.codec == "hevc":
        stream.codec_context.codec_tag = "hvc1"  # the form that Apple's players know
    return stream


def _pictures(cutting: Cutting, stream: Any) -> list[tuple[Any, Any]]:
    import av

    made: list[tuple[Any, Any]] = []
    shown = [round(each.shown_s * _TICKS) for each in cutting.pictures]
    for each, pts, dts in zip(cutting.pictures, shown, _decoding_times(shown), strict=True):
        packet = av.Packet(each.data)
        packet.time_base, packet.dts, packet.pts = _BASE, dts, max(dts, pts)
        packet.is_keyframe = each.key
        made.append((stream, packet))
    return made


def _decoding_times(shown: Sequence[int]) -> list[int]:
    """When to decode pictures that are shown at these times: in their order, and none later than it is shown.

    Cameras often leave these times out, and some say wrong ones.
    """
    ordered: list[int] = []
    for each in sorted(shown):
        ordered.append(max(each, ordered[-1] + 1) if ordered else each)
    delay = max((decoded - each for decoded, each in zip(ordered, shown, strict=True)), default=0)
    return [each - delay for each in ordered]


def _sounds(cutting: Cutting, stream: Any, sound: SoundFormat | None) -> list[tuple[Any, Any]]:
    import av

    made: list[tuple[Any, Any]] = []
    last = -math.inf
    for each in cutting.sounds if sound is not None else ():
        assert sound is not None
        packet = av.Packet(each.data)
        last = max(round(each.time_s * sound.rate_hz), last + 1)
        packet.time_base = Fraction(1, sound.rate_hz)
        packet.dts = packet.pts = int(last)
        packet.duration = round(each.duration_s * sound.rate_hz)
        packet.is_keyframe = True
        made.append((stream, packet))
    return made


def _time_s(packet: Any) -> float:
    return float(packet.dts * packet.time_base)
