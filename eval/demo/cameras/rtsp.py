"""A camera over RTSP: H.264 (RFC 6184) and AAC (RFC 3640) in RTP, interleaved with the requests on one connection."""

from __future__ import annotations

import itertools
import socketserver
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from ovavel.eval.demo.cameras.film import Piece, paced, pieces

__all__ = ["RTSPCamera"]

_LARGEST = 1400
"""Bytes of a payload: what fits into a packet of a network."""
_VIDEO_HZ = 90_000
_MOST_LINES = 64
_PAYLOAD = {"video": 96, "audio": 97}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tracks:
    """What the description says of the clip's streams."""

    parameter_sets: tuple[bytes, ...]
    length_bytes: int
    """Of the length before each unit of a picture."""
    audio_config: bytes
    rate_hz: int
    channels: int

    @classmethod
    def of(cls, clip: Path) -> _Tracks:
        import av

        with av.open(str(clip)) as container:
            video, audio = container.streams.video[0].codec_context, container.streams.audio[0].codec_context
            header = bytes(video.extradata or b"")
            sets, at = [], 5
            for mask in (0x1F, 0xFF):  # sequence parameter sets, then picture parameter sets
                count, at = header[at] & mask, at + 1
                for _ in range(count):
                    (size,) = struct.unpack_from(">H", header, at)
                    sets.append(header[at + 2 : at + 2 + size])
                    at += 2 + size
            return cls(
                parameter_sets=tuple(sets),
                length_bytes=(header[4] & 3) + 1,
                audio_config=bytes(audio.extradata or b"")[:2],
                rate_hz=audio.sample_rate,
                channels=audio.channels,
            )

    def description(self) -> str:
        sets = ",".join(b64encode(each).decode() for each in self.parameter_sets)
        lines = (
            *("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=ovavel demo", "t=0 0", "a=control:*"),
            *("m=video 0 RTP/AVP 96", f"a=rtpmap:96 H264/{_VIDEO_HZ}"),
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
            "a=control:video",
            *("m=audio 0 RTP/AVP 97", f"a=rtpmap:97 MPEG4-GENERIC/{self.rate_hz}/{self.channels}"),
            "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;"
            f"config={self.audio_config.hex()}",
            "a=control:audio",
        )
        return "".join(f"{line}\r\n" for line in lines)

    def payloads(self, piece: Piece) -> Iterator[bytes]:
        """What is sent of one picture or one block of sound, each part in a packet of its own."""
        if piece.kind == "audio":
            yield struct.pack(">HH", 16, len(piece.data) << 3) + piece.data
            return
        at = 0
        while at < len(piece.data):
            size = int.from_bytes(piece.data[at : at + self.length_bytes], "big")
            at += self.length_bytes
            yield from _fragments(piece.data[at : at + size])
            at += size

    def ticks(self, piece: Piece) -> int:
        """Time stamp of a piece."""
        rate_hz = _VIDEO_HZ if piece.kind == "video" else self.rate_hz
        return round(piece.time_s * rate_hz) & 0xFFFFFFFF


def _fragments(unit: bytes) -> Iterator[bytes]:
    """A unit as it is, or cut into pieces that say which is the first and which is the last."""
    if len(unit) <= _LARGEST:
        yield unit
        return
    head, body = unit[0], unit[1:]
    for begin in range(0, len(body), _LARGEST):
        marks = (0x80 if begin == 0 else 0) | (0x40 if begin + _LARGEST >= len(body) else 0)
        yield bytes([head & 0xE0 | 28, marks | head & 0x1F]) + body[begin : begin + _LARGEST]


class RTSPCamera:
    """Plays `clip` from `start_s` on for each who connects, on a free port of loopback."""

    def __init__(self, clip: Path, start_s: float) -> None:
        """Answer from now on."""
        self._clip, self._start_s, self._tracks = clip, start_s, _Tracks.of(clip)
        self._stop = threading.Event()
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # whoever asked has gone
                    camera._answer(self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"rtsp://127.0.0.1:{self._server.server_address[1]}/live"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="demo-rtsp", daemon=True).start()

    def close(self) -> None:
        """End all streams."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, requests: BufferedIOBase, out: BufferedIOBase) -> None:
        gone, sending, channels = threading.Event(), threading.Lock(), itertools.count(0, 2)
        chosen: dict[str, int] = {}

        def say(text: str) -> None:
            with sending:
                out.write(text.encode())

        try:
            while request := _request(requests):
                method, url, number = request
                ok = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n"
                if method == "OPTIONS":
                    say(f"{ok}Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n\r\n")
                elif method == "DESCRIBE":
                    text = self._tracks.description()
                    say(f"{ok}Content-Type: application/sdp\r\nContent-Base: {url}/\r\nContent-Length: {len(text)}\r\n")
                    say(f"\r\n{text}")
                elif method == "SETUP":
                    kind = "audio" if url.endswith("audio") else "video"
                    first = chosen.setdefault(kind, next(channels))
                    say(f"{ok}Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved={first}-{first + 1}\r\n\r\n")
                elif method == "PLAY":
                    times = ",".join(f"url={url.rstrip('/')}/{kind};seq=0;rtptime=0" for kind in chosen)
                    say(f"{ok}Session: 1\r\nRange: npt=0-\r\nRTP-Info: {times}\r\n\r\n")
                    threading.Thread(target=self._play, args=(out, chosen, gone, sending), daemon=True).start()
                else:
                    say(f"{ok}Session: 1\r\n\r\n")
                    if method == "TEARDOWN":
                        return
        finally:
            gone.set()

    def _play(
        self, out: BufferedIOBase, channels: dict[str, int], gone: threading.Event, sending: threading.Lock
    ) -> None:
        numbers = {kind: itertools.count() for kind in channels}
        with suppress(OSError, ValueError):  # whoever asked has gone, and the file is closed
            for piece in paced(pieces(self._clip, self._start_s), self._stop):
                if gone.is_set():
                    return
                if piece.kind not in channels:
                    continue
                parts = list(self._tracks.payloads(piece))
                for index, part in enumerate(parts):
                    last = 0x80 if index == len(parts) - 1 else 0
                    header = struct.pack(
                        ">BBHII",
                        *(0x80, last | _PAYLOAD[piece.kind], next(numbers[piece.kind]) & 0xFFFF),
                        *(self._tracks.ticks(piece), channels[piece.kind] + 1),
                    )
                    frame = header + part
                    with sending:
                        out.write(b"$" + struct.pack(">BH", channels[piece.kind], len(frame)) + frame)


def _request(requests: BufferedIOBase) -> tuple[str, str, str] | None:
    """Method, address and number of the next request; None at the end, or where it is none."""
    while (start := requests.read(1)) == b"$":  # a report of the receiver
        _, size = struct.unpack(">BH", requests.read(3))
        requests.read(size)
    words = (start + requests.readline(4096)).decode("latin-1").split()
    number = "0"
    for _ in range(_MOST_LINES):
        name, _, value = requests.readline(4096).decode("latin-1").partition(":")
        if not name.strip():
            return (words[0], words[1], number) if len(words) == 3 else None
        if name.lower() == "cseq":
            number = value.strip()
    return None
