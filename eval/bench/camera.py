"""A network camera with a microphone that encodes the capture time in picture and sound.

The picture shows the monotonic clock in milliseconds as black and white blocks, the sound as a slow ramp; both can be
read back from a window. It is served over HTTP on loopback, as MJPEG and PCM, in real time.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.types import RATE_HZ

__all__ = ["CAMERA", "StampingCamera", "read_frame_s", "read_sound_s", "stamp_frame", "stamp_sound"]

_FPS = 25
_BLOCK_PX = 16
_COLUMNS, _ROWS = 16, 4  # 32 bits, then the same bits inverted
_BITS = _COLUMNS * _ROWS // 2
_WIDTH, _HEIGHT = 320, 240
_RAMP_S = 16.0
_AMPLITUDE = 0.5

CAMERA = f"{_WIDTH} × {_HEIGHT} MJPEG, {_FPS} frames/s, 16-bit sound at {RATE_HZ // 1000} kHz, over HTTP on loopback"


def stamp_frame(now_s: float) -> NDArray[np.uint8]:
    """Draw the time into a grey picture (H, W, 3)."""
    number = round(now_s * 1e3) % 2**_BITS
    bits = np.array([number >> i & 1 for i in range(_BITS)])
    blocks = np.concatenate([bits, 1 - bits]).reshape(_ROWS, _COLUMNS).astype(np.uint8) * 255
    picture = np.full((_HEIGHT, _WIDTH, 3), 128, np.uint8)
    drawn = np.kron(blocks, np.ones((_BLOCK_PX, _BLOCK_PX), np.uint8))
    picture[: drawn.shape[0], : drawn.shape[1]] = drawn[..., None]
    return picture


def read_frame_s(picture: NDArray[np.uint8], now_s: float) -> float | None:
    """Return when a picture (H, W, 3) was drawn, at most some weeks before `now_s`; None if it has no stamp."""
    middle = _BLOCK_PX // 2
    blocks = picture[middle : _ROWS * _BLOCK_PX : _BLOCK_PX, middle : _COLUMNS * _BLOCK_PX : _BLOCK_PX].mean(axis=2)
    bits, inverted = (blocks.ravel() > 128).reshape(2, _BITS)
    if (bits == inverted).any():
        return None
    number = sum(int(bit) << i for i, bit in enumerate(bits))
    age_ms: int = (round(now_s * 1e3) - number) % 2**_BITS
    return now_s - age_ms / 1e3


def stamp_sound(begin_s: float, count: int) -> NDArray[np.int16]:
    """Return `count` samples from `begin_s` on, each encoding its time within a ramp of 16 s."""
    times_s = begin_s + np.arange(count) / RATE_HZ
    ramp = (times_s % _RAMP_S) / _RAMP_S * 2 - 1
    return np.round(ramp * _AMPLITUDE * 32767).astype(np.int16)


def read_sound_s(waveform: NDArray[np.float32], now_s: float) -> float:
    """Return when the last sample of (C, n) was made, at most 16 s before `now_s`."""
    ramp_s = (float(waveform[0, -1]) * 32768 / 32767 / _AMPLITUDE + 1) / 2 * _RAMP_S
    return now_s - (now_s - ramp_s) % _RAMP_S


class StampingCamera:
    """Serves picture and sound to all clients until it is closed."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.end_headers()
                with suppress(OSError):  # the client disconnected
                    camera._send(self.wfile)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/camera"

    def close(self) -> None:
        """Stop serving."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _send(self, out: Any) -> None:
        import av

        with av.open(out, "w", format="nut", options={"flush_packets": "1"}, buffer_size=4096) as container:
            video = container.add_stream("mjpeg", rate=_FPS)
            video.width, video.height, video.pix_fmt = _WIDTH, _HEIGHT, "yuvj420p"
            sound = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
            samples = RATE_HZ // _FPS
            begin_s = time.monotonic()
            for number in range(2**31):
                due_s = (
                    begin_s + (number + 1) / _FPS
                )  # the sound of a frame's interval exists once the interval has passed
                if self._stopped.wait(max(0.0, due_s - time.monotonic())):
                    return
                block = av.AudioFrame.from_ndarray(stamp_sound(due_s - 1 / _FPS, samples)[None], "s16", "mono")
                block.sample_rate, block.pts = RATE_HZ, number * samples
                picture = av.VideoFrame.from_ndarray(stamp_frame(time.monotonic()), format="rgb24")
                picture.pts = number
                for packet in (*sound.encode(block), *video.encode(picture)):
                    container.mux(packet)
