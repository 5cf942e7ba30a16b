"""Connections that may be lost, and what notices it and connects again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ovavel.runtime.sources import StatusListener

__all__ = ["FROZEN_S", "Feed", "Lifeline"]

FROZEN_S = 2.5
"""What brings nothing for so long is lost; with the time to notice it, this stays under 3 s."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 10.0
CONNECT_S = 15.0
"""An attempt that brings nothing for so long has failed, even if it still hangs in a driver."""
MOST_HANGING = 3
"""With so many attempts hanging in a driver, another waits until one of them returns."""


class Feed:
    """One connection to a device or stream, served by a daemon thread, so that a blocked read holds nothing up.

    A subclass opens and reads in `_serve`, calls `bring` for all it gets, and returns soon once `stopping` is set.
    """

    def __init__(self, name: str) -> None:
        """Call `start` to connect to what is called `name`."""
        self.opened = threading.Event()
        """Set when it has brought something, or has failed."""
        self.brought_s = 0.0
        """Monotonic clock when it last brought something."""
        self.ended = threading.Event()
        self.stopping = threading.Event()
        self.error: Exception | None = None
        """Why it ended, where that was an error."""
        self._thread = threading.Thread(target=self._run, name=f"ovavel {name}", daemon=True)

    def start(self) -> None:
        """Start to connect, and return at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; does not wait. What it holds is released by its own thread."""
        self.stopping.set()

    def bring(self) -> None:
        """Note that something arrived."""
        self.brought_s = time.monotonic()
        self.opened.set()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told through `error`
            self.error = error
        finally:
            self.ended.set()
            self.opened.set()

    def _serve(self) -> None:
        raise NotImplementedError


class Lifeline:
    """Keeps a feed: notices that it was lost and replaces it, after 1, 2, 4 … at most 10 seconds."""

    def __init__(self, name: str, feed: Feed, connect: Callable[[], Feed], tell: StatusListener, now_s: float) -> None:
        """Watch the started `feed` from `now_s` on; `connect` makes and starts the next one."""
        self.feed = feed
        self.lost = False
        self.newest_s = now_s
        """Monotonic clock when something of it was last taken."""
        self._name, self._connect, self._tell = name, connect, tell
        self._delay_s = FIRST_DELAY_S
        self._retry_s: float | None = None
        """When to connect again; None while a feed is at work."""
        self._tried_s = now_s
        self._hanging: list[Feed] = []

    def arrived(self, now_s: float) -> bool:
        """Note that the feed brought something; true if it had been lost before."""
        back, self.lost = self.lost, False
        self.newest_s = now_s
        self._delay_s = FIRST_DELAY_S
        if back:
            self._tell(f"{self._name} is back")
        return back

    def check(self, now_s: float) -> None:
        """Notice a loss, and connect again when it is time to."""
        if self._retry_s is None and self.feed.stopping.is_set():
            return  # it ends because it was asked to, from another thread
        if self._retry_s is not None:
            self._hanging = [feed for feed in self._hanging if not feed.ended.is_set()]
            if now_s >= self._retry_s and len(self._hanging) < MOST_HANGING:
                self._retry_s, self._tried_s = None, now_s
                self.feed = self._connect()
        elif self.lost:
            if self.feed.ended.is_set() or now_s - self._tried_s > CONNECT_S:
                self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
                self._drop(now_s)
        elif self.feed.ended.is_set() or now_s - max(self.newest_s, self.feed.brought_s) > FROZEN_S:
            self.lost = True
            error = self.feed.error
            if self.feed.ended.is_set():
                why = "it ended" if error is None else str(error)
            else:
                why = f"nothing came for {FROZEN_S:g} s"
            self._tell(f"{self._name} is lost ({why}); trying to open it again")
            self._drop(now_s)

    def close(self) -> None:
        """Let go of the feed."""
        self.feed.stop()

    def _drop(self, now_s: float) -> None:
        self.feed.stop()
        self._hanging.append(self.feed)
        self._retry_s = now_s + self._delay_s
