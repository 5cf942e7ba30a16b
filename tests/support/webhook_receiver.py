"""A receiver of webhooks on the loopback interface, which answers as a test asks it to."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class WebhookReceiver:
    """Answers 200 unless `answers` holds something else to do next: a status, a status with headers, or a word.

    "drop": close the connection. "silence": never answer. "hang": a good head, and then nothing.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, port: int = 0) -> None:
        self.received: list[Received] = []
        self.answers: deque[int | str | tuple[int, dict[str, str]]] = deque()
        self.forever: int | str | None = None
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                if len(body) < length:
                    self.close_connection = True  # the sender was killed half-way: nothing has been received
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                answer = receiver._next()
                if answer == "silence":
                    receiver._over.wait()
                if answer in ("silence", "drop"):
                    self.close_connection = True
                    return
                status, more = answer if isinstance(answer, tuple) else (200 if answer == "hang" else answer, {})
                assert isinstance(status, int)
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "1000" if answer == "hang" else "0")
                self.end_headers()
                if answer == "hang":
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    receiver._over.wait()
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass  # the other side has left, as many of these tests make it

        self._server = Server(("127.0.0.1", port), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.url = f"http{'s' if tls else ''}://localhost:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def _next(self) -> int | str | tuple[int, dict[str, str]]:
        if self.forever is not None:
            return self.forever
        return self.answers.popleft() if self.answers else 200

    def __enter__(self) -> WebhookReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
