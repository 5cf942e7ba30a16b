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
    "refused", "stalled", "reset", "gone", "garbage", "trickle",
    "unauthorized", "redirect loop", "endless header", "cut",
]  # fmt: skip
LINK_FAULTS: tuple[LinkFault, ...] = get_args(LinkFault)
"""Whoever asks is sent away; nothing arrives though the connection stays; a reset; nobody answers at all, and knows
nothing of earlier connections afterwards; bytes of chance; a few bytes a second; 401; a redirect to the same place; a
header without end; every connection is closed after a second's worth."""

_PIECE = 16_384
_NO_LINGER = struct.pack("ii", 1, 0)
_TURN_S = 0.1
_CUT_AFTER = 60_000
_BACKLOG = 64


class FaultyLink:
    """Relays connections on `port` to `target`; `fault` says what is wrong now, None while nothing is."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target, self.fault = target, None  # type: int, LinkFault | None
        self._random = random.Random(seed)
        self._closed = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, name="faulty-link", daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._server.close()

    def _accept(self) -> None:
        self._server.settimeout(_TURN_S)
        while not self._closed.is_set():
            if self.fault == "gone":
                self._be_gone()
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _be_gone(self) -> None:
        """Fill the queue of connections that nobody takes: the kernel does not answer then, as if it were away."""
        with contextlib.ExitStack() as opened:
            for _ in range(2 * _BACKLOG):
                filler = opened.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
            while self.fault == "gone" and not self._closed.wait(_TURN_S):
                pass
            for _ in range(_BACKLOG + 1):  # whoever is among these comes again
                with contextlib.suppress(OSError):
                    self._server.accept()[0].close()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self.fault == "refused":
                return
            if not self._answer_wrongly(client):
                gone = threading.Event()
                with socket.create_connection(("127.0.0.1", self.target), timeout=10) as server:
                    back = threading.Thread(target=self._relay, args=(client, server, gone), daemon=True)
                    back.start()
                    self._relay(server, client, gone)
                    if self.fault == "reset" or gone.is_set():
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

    def _relay(self, source: socket.socket, target: socket.socket, gone: threading.Event) -> None:
        with contextlib.suppress(OSError):  # an end has gone
            self._pass(source, target, gone)

    def _pass(self, source: socket.socket, target: socket.socket, gone: threading.Event) -> None:
        source.settimeout(_TURN_S)
        sent = 0
        while not self._closed.is_set():
            fault = self.fault
            if fault in ("refused", "reset", "unauthorized", "redirect loop", "endless header"):
                return
            if fault == "gone":
                gone.set()
            elif gone.is_set():
                return
            if fault in ("stalled", "gone"):
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
