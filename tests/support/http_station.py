"""Something on loopback that sends one endless answer to whoever asks; can fall silent, be killed and come back."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FPS = 20
"""Of the camera."""


class HttpStation:
    """Serves what `send` writes until `stopped` is set; `send` minds `muted`."""

    content_type = "application/octet-stream"

    def __init__(self, *, port: int = 0, refusal: int = 0) -> None:
        self.refusal = refusal
        """Status with which whoever asks is refused, e.g. 401; 0 answers."""
        self.muted = threading.Event()
        self.stopped = threading.Event()
        station = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if station.refusal:
                    self.send_error(station.refusal)
                    return
                self.send_response(200)
                self.send_header("Content-Type", station.content_type)
                self.end_headers()
                with suppress(OSError):  # whoever asked has gone
                    station.send(self.wfile)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def send(self, out: BinaryIO) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """As `stop`."""
        self.stop()

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


class JpegCamera(HttpStation):
    """Multipart JPEG, as network cameras send it. Its picture's colour is `colour` (RGB)."""

    content_type = "multipart/x-mixed-replace; boundary=frame"

    def __init__(self, *, port: int = 0, fps: float = FPS, refusal: int = 0) -> None:
        self.colour = (200, 30, 30)
        self.fps = fps
        self.sent_s: list[float] = []
        """Monotonic clock before each picture was sent."""
        self._left = -1  # pictures to send before it falls silent; negative: no end
        self._changing = threading.Lock()
        super().__init__(port=port, refusal=refusal)
        self.url = f"http://127.0.0.1:{self.port}/camera.mjpeg"

    def send(self, out: BinaryIO) -> None:
        import cv2

        while not self.stopped.is_set():
            with self._changing:
                picture, muted = self.picture(), self.muted.is_set() or self._left == 0
                self._left -= not muted
            if not muted:
                self.sent_s.append(time.monotonic())
                jpeg = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
                out.write(f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode())
                out.write(jpeg + b"\r\n")
            time.sleep(1 / self.fps)

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, the next one to send."""
        import numpy as np

        return np.full((120, 160, 3), self.colour, np.uint8)

    def change(self, colour: tuple[int, int, int], *, pictures: int = -1) -> None:
        """Send pictures of another colour: so many and then no more, or without end."""
        with self._changing:
            self.colour, self._left = colour, pictures


class TransportStream(HttpStation):
    """An MPEG transport stream at its own speed."""

    content_type = "video/mp2t"

    def __init__(self, clip: bytes, *, rate_bytes: float, port: int = 0, refusal: int = 0) -> None:
        self.clip, self.rate_bytes = clip, rate_bytes
        super().__init__(port=port, refusal=refusal)
        self.url = f"http://127.0.0.1:{self.port}/live"

    def send(self, out: BinaryIO) -> None:
        begin_s, sent = time.monotonic(), 0
        while sent < len(self.clip) and not self.stopped.is_set():
            while self.muted.is_set() and not self.stopped.is_set():
                time.sleep(0.02)
            due = int((time.monotonic() - begin_s + 1) * self.rate_bytes)
            out.write(self.clip[sent:due])
            sent = max(sent, due)
            time.sleep(0.02)
