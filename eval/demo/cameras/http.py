"""A camera over HTTP: an MPEG transport stream with picture and sound to whoever asks."""

from __future__ import annotations

import threading
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path

from ovavel.eval.demo.cameras.film import paced, pieces

__all__ = ["HTTPCamera"]

_CLOCK = Fraction(1, 90_000)
_PACKET = 7 * 188
"""Bytes that are sent at once: a larger buffer would hold seconds of such a small picture back."""


class HTTPCamera:
    """Plays `clip` from `start_s` on for each who connects, on a free port of loopback."""

    def __init__(self, clip: Path, start_s: float) -> None:
        """Answer from now on."""
        self._clip, self._start_s = clip, start_s
        self._stop = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                from av.error import FFmpegError

                with suppress(OSError, FFmpegError):  # whoever asked has gone
                    camera._send(self.wfile)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/live.ts"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="demo-http", daemon=True).start()

    def close(self) -> None:
        """End all streams."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _send(self, out: BufferedIOBase) -> None:
        import av

        with (
            av.open(str(self._clip)) as model,
            av.open(out, "w", format="mpegts", buffer_size=_PACKET, options={"flush_packets": "1"}) as stream,
        ):
            tracks = {
                each.type: stream.add_stream_from_template(each)
                for each in (model.streams.video[0], model.streams.audio[0])
            }
            for piece in paced(pieces(self._clip, self._start_s), self._stop):
                packet = av.Packet(piece.data)
                packet.stream, packet.time_base = tracks[piece.kind], _CLOCK
                packet.pts, packet.dts = round(piece.time_s / _CLOCK), round(piece.decode_s / _CLOCK)
                packet.is_keyframe = piece.key
                stream.mux(packet)
