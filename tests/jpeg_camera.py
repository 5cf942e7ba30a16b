"""A network camera on loopback that can change its picture, freeze, be killed and come back."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

FPS = 20


class JpegCamera:
    """Serves multipart JPEG over HTTP, as network cameras do. Its picture's colour is `colour` (RGB)."""

    def __init__(self, *, port: int = 0) -> None:
        self.colour = (200, 30, 30)
        self.changed_s = 0.0
        self.muted = threading.Event()
        self.stopped = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not camera.stopped.is_set():
                        if not camera.muted.is_set():
                            picture = np.full((120, 160, 3), camera.colour[::-1], np.uint8)
                            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                            self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(1 / FPS)
                except OSError:
                    pass

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/camera.mjpeg"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def change(self, colour: tuple[int, int, int]) -> None:
        self.colour, self.changed_s = colour, time.monotonic()

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
