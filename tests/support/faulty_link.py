"""A TCP connection that can fail: a relay to a healthy server on loopback, whose faults are switched while it runs."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from typing import Literal, get_args

__all__ = ["LINK_FAULTS", "FaultyLink", "LinkFault"]

LinkFault = Literal[
    "refused", "stalled", "reset", "garbage", "trickle", "unauthorized", "redirect loop", "endless header", "cut"
]
LINK_FAULTS: tuple[LinkFault, ...] = get_args(LinkFault)
"""Whoever asks is sent away; nothing arrives though the connection stays; a reset; bytes of chance; a few bytes a
second; 401; a redirect to the same place; a header without end; every connection is closed after a second's worth."""

_PIECE = 16_384
_NO_LINGER = struct.pack("ii", 1, 0)
_TURN_S = 0.1
_CUT_AFTER = 60_000


class FaultyLink:
    """Relays connections on `port` to `target`; `fault` says what is wrong now, None while nothing is."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target, self.fault = target, None  # type: int, LinkFault | None
        self._random = random.Random(seed)
        self._closed = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, name="faulty-link", daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._server.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self.fault == "refused":
                return
            if not self._answer_wrongly(client):
                with socket.create_connection(("127.0.0.1", self.target), timeout=10) as server:
                    back = threading.Thread(target=self._relay, args=(client, server), daemon=True)
                    back.start()
                    self._relay(server, client)
                    if self.fault == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def _answer_wrongly(self, client: socket.socket) -> bool:
        """Answer instead of the server, where the fault is one of HTTP; whether that was done."""
        answers = {
            "unauthorized": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Basic\r\n\r\n",
            "redirect loop": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/live.ts\r\n\r\n" % self.port,
            "endless header": b"HTTP/1.1 200 OK\r\nX-Long: ",
        }
        if self.fault not in answers:
            return False
        client.settimeout(5)
        client.recv(_PIECE)
        client.sendall(answers[self.fault])
        while self.fault == "endless header" and not self._closed.wait(_TURN_S):
            client.sendall(b"x" * 1000)
        return True

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # an end has gone
            self._pass(source, target)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        source.settimeout(_TURN_S)
        sent = 0
        while not self._closed.is_set():
            fault = self.fault
            if fault in ("refused", "reset", "unauthorized", "redirect loop", "endless header"):
                return
            if fault == "stalled":
                self._closed.wait(_TURN_S)
                continue
            try:
                data = source.recv(20 if fault == "trickle" else _PIECE)
            except TimeoutError:
                continue
            if not data:
                return
            if fault == "garbage":
                data = self._random.randbytes(len(data))
            target.sendall(data)
            sent += len(data)
            if fault == "cut" and sent > _CUT_AFTER:
                return
            if fault == "trickle":
                self._closed.wait(_TURN_S)
