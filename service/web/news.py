"""What is new, read from the store and encoded once, however many listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ovavel.service.store.events import LogEntry

__all__ = ["News", "event_message"]

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_PAUSE_S = 0.1
"""What the cameras show within this is one message: with many cameras, several change at almost the same time."""
_GONE = 100
"""Messages on deleted events that are kept for readers who are a little behind."""
_KEPT = 1000
"""Messages of the event log that are kept for readers who are a little behind."""

Message = tuple[int, bytes]
"""Number in the log, and what is sent."""


def event_message(entry: LogEntry) -> Message:
    """A row of the event log as readers of the stream get it."""
    return entry.seq, b"event: event\nid: %d\ndata: %s\n\n" % (entry.seq, msgspec.json.encode(entry))


class News:
    """Looks while somebody listens. Used in the event loop alone."""

    def __init__(
        self,
        *,
        wait: Callable[[int, float], int],
        newest: Callable[[], int],
        log_after: Callable[[int], Sequence[LogEntry]],
        now: Callable[[], Any],
    ) -> None:
        """All of these are called in other threads.

        Args:
            wait: waits until something has changed since a version, for so many seconds; returns the present version.
            newest: the newest number of the event log.
            log_after: the entries after a number.
            now: what the cameras see and hear.
        """
        self._wait, self._newest, self._log_after, self._now = wait, newest, log_after, now
        self._recent: deque[Message] = deque(maxlen=_KEPT)
        self.seq = 0
        """The newest entry of the log that is known here."""
        self.version = -1
        self.now = b""
        """What the cameras see and hear, as a message, at `version`; empty before the first look."""
        self.gone: tuple[Message, ...] = ((0, b""),)
        """The newest messages on events that were deleted, which the log knows no more; counted on their own."""
        self._adding = threading.Lock()
        self.listeners = 0
        self._task: asyncio.Task[None] | None = None
        self._turned = asyncio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this, `turn` waits for news."""
        self.listeners += 1
        if self._task is None or self._task.done():
            # What was known when somebody listened last is old.
            self._recent.clear()
            self.seq, self.version, self.now, self._turned = 0, -1, b"", asyncio.Event()
            self._task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            self.listeners -= 1

    async def turn(self) -> bool:
        """Wait for the next look, a second or so at most; False where none follows, because the store is unreadable."""
        assert self._task
        if self._task.done():
            return False
        await self._turned.wait()
        return True

    def deleted(self, events: Sequence[str]) -> None:
        """Let those who listen know that these are gone. Called from any thread."""
        message = b"event: deleted\ndata: %s\n\n" % msgspec.json.encode({"ids": events})
        with self._adding:
            self.gone = (*self.gone, (self.gone[-1][0] + 1, message))[-_GONE:]
            # Readers who are behind ask the store, which has them no more.
            self._recent = deque(maxlen=_KEPT)

    def after(self, seq: int) -> list[Message] | None:
        """Messages after this number; None where they are not kept here, but in the store."""
        if seq >= self.seq:
            return []
        if not self._recent or self._recent[0][0] > seq + 1:
            return None
        return [each for each in self._recent if each[0] > seq]

    async def _look_on(self) -> None:
        try:
            self.seq = await asyncio.to_thread(self._newest)
            while self.listeners:
                await self._look()
                turned, self._turned = self._turned, asyncio.Event()
                turned.set()
                await asyncio.sleep(_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - readers ask again, and it is begun again
            _log.warning("readers of the stream were sent away: %s: %s", type(error).__name__, error)
        finally:
            self._turned.set()  # nobody waits for a look that does not come

    async def _look(self) -> None:
        version = await asyncio.to_thread(self._wait, self.version, _TICK_S)
        messages, now = await asyncio.to_thread(self._read, self.seq, version != self.version)
        for message in messages:
            self._recent.append(message)
            self.seq = message[0]
        self.version, self.now = version, now or self.now

    def _read(self, seq: int, changed: bool) -> tuple[list[Message], bytes]:
        now = b"event: now\ndata: %s\n\n" % msgspec.json.encode(self._now()) if changed else b""
        return [event_message(each) for each in self._log_after(seq)], now
