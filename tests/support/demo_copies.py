"""The demo's clip as other programs would have stored it, made with PyAV: its six events are the right answer."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

CLIP = Path(__file__).parents[2] / "eval" / "demo" / "assets" / "clip.mp4"
BUNDLE = CLIP.parent / "bundle"

EVENTS = [
    (0.0, 4.0, "small bell ringing quickly"),
    (7.0, 10.0, "small bell ringing quickly"),
    (13.0, 19.0, "large dog barking slowly"),
    (28.0, 29.0, "small bird singing slowly"),
    (29.0, 35.0, "large drum beating quickly"),
    (37.0, 40.0, "large frog croaking quickly"),
]
"""Start, end and label of the events in the clip."""


def copy_clip(
    path: Path,
    *,
    offset_s: float = 0.0,
    sound_offset_s: float = 0.0,
    video_until_s: float = 1e9,
    order: Callable[[float, str], Any] = lambda time_s, kind: time_s,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy the streams without decoding them, packets in the `order` of time and kind ("video" or "audio")."""
    with av.open(str(CLIP)) as source, av.open(str(path), "w", options=options or {}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        packets = []
        for packet in source.demux():
            if not packet.size or (packet.stream.type == "video" and packet.pts * packet.time_base >= video_until_s):
                continue
            shift_s = offset_s + (sound_offset_s if packet.stream.type == "audio" else 0.0)
            ticks = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packets.append((order(float(packet.dts * packet.time_base), packet.stream.type), packet))
        for _, packet in sorted(packets, key=lambda item: item[0]):
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return path


def encode_clip(
    path: Path,
    *,
    keep: Callable[[float], bool] = lambda time_s: True,
    b_frames: int = 2,
    fps: Fraction = Fraction(12),
    options: dict[str, str] | None = None,
) -> Path:
    """Encode those pictures again that `keep` says, each at its own time; the sound is copied. The file says `fps`."""
    with av.open(str(CLIP)) as source, av.open(str(path), "w", options=options or {}) as out:
        picture, sound = source.streams.video[0], source.streams.audio[0]
        encoder = out.add_stream("libx264", rate=fps, options={"preset": "veryfast", "bf": str(b_frames)})
        encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuv420p"
        encoder.codec_context.time_base = Fraction(1, 12288)
        copied = out.add_stream_from_template(sound)
        for packet in source.demux(picture, sound):
            if packet.stream is sound and packet.size:
                packet.stream = copied
                out.mux(packet)
            elif packet.stream is picture:
                for frame in packet.decode():
                    if keep(frame.time):
                        frame.pts = round(frame.time * 12288)
                        frame.time_base = Fraction(1, 12288)
                        frame.pict_type = 0
                        out.mux(encoder.encode(frame))
        out.mux(encoder.encode(None))
    return path
