"""Connections that cannot be used up: each has a time for its requests, and those that ask nothing give way."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MOST", "REQUEST_S", "Connection"]

MOST = 400
"""Connections at a time: beside them the service needs descriptors for its store and its processes."""
REQUEST_S = 20.0
"""Within this time of its first byte a request is complete."""
_COMPLETE = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


class Connection(H11Protocol):
    """One connection. Where there are too many, the oldest that waits for its request is closed."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or end one."""
        super().connection_made(transport)
        self.access_log = False  # addresses are nobody's business, whatever handlers the log has
        self._since_s = self.loop.time()
        self._expect()
        if len(self.connections) > MOST:
            waiting = [each for each in self.connections if isinstance(each, Connection) and each._waits]
            min(waiting, key=lambda each: each._since_s, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take some of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Take the next request."""
        self._since_s = self.loop.time()
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self.conn.their_state in _COMPLETE:
            self._forget()
        elif self._deadline is None:
            self._expect()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
