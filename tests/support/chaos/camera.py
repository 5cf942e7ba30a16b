"""A camera over HTTP whose stream changes in the middle: other films, damaged packets, clocks that jump."""

from __future__ import annotations

import random
from contextlib import closing
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path
from typing import Literal, get_args

from ovavel.eval.demo.cameras.film import Piece, paced, pieces
from ovavel.eval.demo.cameras.http import HTTPCamera

__all__ = ["FILMS", "STREAM_FAULTS", "FaultyCamera", "StreamFault", "make_films"]

StreamFault = Literal[
    "packets damaged", "key frames missing", "clock jumps", "clock goes back", "clock wraps", "sound vanishes",
    "picture vanishes", "another codec", "another size and rate", "black and silent", "sound never sent",
    "picture freezes", "sound drifts",
]  # fmt: skip
STREAM_FAULTS: tuple[StreamFault, ...] = get_args(StreamFault)

FILMS: dict[StreamFault, list[str]] = {
    "another codec": ["-c:v", "mpeg4", "-c:a", "mp2", "-ar", "44100"],
    "another size and rate": ["-s", "192x108", "-r", "13", "-c:v", "libx264", "-g", "26", "-ar", "16000", "-ac", "1"],
    "picture freezes": ["-vf", "trim=end_frame=1,loop=119:1:0,setpts=N/(12*TB)", "-c:v", "libx264", "-g", "25"],
    "black and silent": ["-vf", "geq=0:128:128", "-c:v", "libx264", "-g", "25", "-af", "volume=0"],
}
"""Films that a fault shows instead, as FFmpeg makes them of the camera's own."""

_CLOCK = Fraction(1, 90_000)
_PACKET = 7 * 188
_WRAP_S = (1 << 33) / 90_000
"""Time stamps of a transport stream have 33 bits."""
_SLOW = 0.99
"""How fast a clock of sound goes that drifts by one percent."""
_JUMPS_S: dict[StreamFault | None, float] = {"clock jumps": 900.0, "clock goes back": -20.0}


def make_films(clip: Path, folder: Path, run: object) -> dict[StreamFault, Path]:
    """The films of `FILMS`, ten seconds each; `run` runs a command."""
    made = {}
    for fault, options in FILMS.items():
        path = folder / f"{fault}.mp4"
        command = ["ffmpeg", "-v", "error", "-y", "-t", "10", "-i", str(clip), *options, str(path)]
        run(command)  # type: ignore[operator]
        made[fault] = path
    return made


class FaultyCamera(HTTPCamera):
    """Plays as its stream fault says, from the moment that it changes, on connections that stay."""

    def __init__(self, clip: Path, start_s: float, films: dict[StreamFault, Path], *, seed: int = 0) -> None:
        self.stream_fault: StreamFault | None = None
        self._films, self._random = films, random.Random(seed)
        super().__init__(clip, start_s)

    def _send(self, out: BufferedIOBase) -> None:
        position_s = self._start_s
        begin_s = 0.0
        while not self._stop.is_set():
            begin_s, position_s = self._play(out, self.stream_fault, begin_s, position_s)

    def _play(
        self, out: BufferedIOBase, fault: StreamFault | None, begin_s: float, position_s: float
    ) -> tuple[float, float]:
        """Send until the fault changes; returns the stream's time, and where in the film that was."""
        import av

        film = self._films.get(fault, self._clip) if fault else self._clip
        start_s = position_s if film == self._clip else 0.0
        # The camera's clock is wrong from here on. The stream's own time stamps wrap by themselves.
        begin_s = end_s = max(0.0, begin_s + _JUMPS_S.get(fault, 0.0)) if fault != "clock wraps" else _WRAP_S - 3
        with (
            av.open(str(film)) as model,
            av.open(out, "w", format="mpegts", buffer_size=_PACKET, options={"flush_packets": "1"}) as stream,
            closing(pieces(film, start_s)) as source,
        ):
            tracks = {
                each.type: stream.add_stream_from_template(each)
                for each in (model.streams.video[0], model.streams.audio[0])
            }
            for piece in paced(source, self._stop):
                end_s = begin_s + piece.time_s
                if self.stream_fault != fault and piece.key and piece.kind == "video":
                    break
                data = self._changed(piece, fault)
                if data is None:
                    continue
                packet = av.Packet(data)
                packet.stream, packet.time_base = tracks[piece.kind], _CLOCK
                rate = _SLOW if fault == "sound drifts" and piece.kind == "audio" else 1.0
                times_s = (begin_s + rate * each for each in (piece.time_s, piece.decode_s))
                packet.pts, packet.dts = (round(each / _CLOCK) for each in times_s)
                packet.is_keyframe = piece.key
                stream.mux(packet)
        return end_s, (position_s + end_s - begin_s) % 30.0

    def _changed(self, piece: Piece, fault: StreamFault | None) -> bytes | None:
        """What is sent of a piece; None: nothing."""
        lost = {
            "sound vanishes": piece.kind == "audio",
            "sound never sent": piece.kind == "audio",
            "picture vanishes": piece.kind == "video",
            "key frames missing": piece.kind == "video" and piece.key and piece.time_s > 0,
        }
        if fault and lost.get(fault):
            return None
        if fault == "packets damaged" and self._random.random() < 0.3:
            data = bytearray(piece.data)
            for _ in range(8):
                data[self._random.randrange(len(data))] = self._random.randrange(256)
            return bytes(data)
        return piece.data
