"""Connections that may be lost, and what notices it and connects again."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator

from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.types import Notice

__all__ = ["ASLEEP_S", "FROZEN_S", "GAP_EVERY_S", "Feed", "Connection", "end_all"]

FROZEN_S = 2.5
"""What brings nothing for so long is lost; with the time to notice it, this stays under 3 s."""
GAP_EVERY_S = 0.25
"""While it is lost, so often a source declares the time that has passed."""
ASLEEP_S = 1.0
"""Who has not looked for so long was stopped or starved, and cannot say how long nothing came."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 10.0
CONNECT_S = 15.0
"""An attempt that brings nothing for so long has failed, even if it still hangs in a driver."""
MOST_HANGING = 3
"""With so many attempts hanging in a driver, another waits until one of them returns."""

EXIT_S = 3.0
"""A program that ends waits so long for its feeds: a little longer than a network read may bring nothing."""

_at_work: set[Feed] = set()


def end_all(within_s: float) -> bool:
    """Ask every feed to end, and wait for at most `within_s` together; returns whether all of them have.

    FFmpeg asks PyAV, and PyAV asks Python, whether a read has taken too long. Once the interpreter is gone that crashes
    the process, so it waits for its feeds first.
    """
    until_s = time.monotonic() + within_s
    feeds = list(_at_work)
    for feed in feeds:
        feed.stop()
    for feed in feeds:
        feed.ended.wait(max(0.0, until_s - time.monotonic()))
    return all(feed.ended.is_set() for feed in feeds)


atexit.register(end_all, EXIT_S)


class Feed:
    """One connection to a device or stream, served by a daemon thread, so that a blocked read holds nothing up.

    A subclass opens and reads in `_serve`, calls `bring` for all it gets, and returns soon once `stopping` is set.
    """

    def __init__(self, name: str, *, address: str = "") -> None:
        """Call `start` to connect to what is called `name`; `address` may hold secrets that `why` does not show."""
        self.opened = threading.Event()
        """Set when it has brought something, or has failed."""
        self.brought_s = 0.0
        """Monotonic clock when it last brought something."""
        self.ended = threading.Event()
        self.stopping = threading.Event()
        self.error: Exception | None = None
        """Why it ended, where that was an error. Its text may hold a password."""
        self._address = address
        self._thread = threading.Thread(target=self._run, name=f"ovavel {name}", daemon=True)

    @property
    def why(self) -> str:
        """Why it ended, fit to be shown."""
        if self.error is None:
            return "it ended"
        reason = getattr(self.error, "strerror", None) or str(self.error) or type(self.error).__name__
        return redacted(reason, self._address)

    def start(self) -> None:
        """Start to connect, and return at once."""
        _at_work.add(self)
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
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is reported through `error`
            self.error = error
        finally:
            _at_work.discard(self)
            self.ended.set()
            self.opened.set()

    def _serve(self) -> None:
        raise NotImplementedError


class Connection:
    """Keeps a feed: notices that it was lost and replaces it, after 1, 2, 4 … at most 10 seconds."""

    def __init__(self, name: str, feed: Feed, connect: Callable[[], Feed], now_s: float) -> None:
        """Watch the started `feed` from `now_s` on; `connect` makes and starts the next one."""
        self.feed = feed
        self.lost = False
        self.newest_s = now_s
        """Monotonic clock when something of it was last taken."""
        self._name, self._connect = name, connect
        self._news: list[str] = []
        self._delay_s = FIRST_DELAY_S
        self._retry_s: float | None = None
        """When to connect again; None while a feed is at work."""
        self._tried_s = now_s
        self._hanging: list[Feed] = []
        self._why = ""  # the newest reason that was reported
        self._awake_s = now_s

    def arrived(self, now_s: float) -> bool:
        """Note that the feed brought something; true if it had been lost before."""
        back, self.lost = self.lost, False
        self.newest_s = self._awake_s = now_s
        self._delay_s = FIRST_DELAY_S
        if back:
            self._news.append(f"{self._name} is back")
        return back

    def check(self, now_s: float) -> None:
        """Notice a loss, and connect again when it is time to."""
        asleep, self._awake_s = now_s - self._awake_s > ASLEEP_S, now_s
        if asleep:  # nothing was taken because nobody was there to take it
            self.newest_s = now_s
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
                self._report("is still lost", CONNECT_S)
                self._drop(now_s)
        elif self.feed.ended.is_set() or now_s - max(self.newest_s, self.feed.brought_s) > FROZEN_S:
            self.lost = True
            self._why = ""
            self._report("is lost", FROZEN_S)
            self._drop(now_s)

    def notices(self, time_s: float) -> Iterator[Notice]:
        """What `arrived` and `check` found since the last call, at the media time `time_s`."""
        news, self._news = self._news, []
        for message in news:
            yield Notice(time_s=time_s, message=message)

    def close(self) -> None:
        """Let go of the feed."""
        self.feed.stop()

    def _report(self, what: str, silent_s: float) -> None:
        """Say why the feed is dropped, unless the reason is the one reported before."""
        why = self.feed.why if self.feed.ended.is_set() else f"nothing came for {silent_s:g} s"
        if why != self._why:
            self._why = why
            self._news.append(f"{self._name} {what} ({why}); trying to open it again")

    def _drop(self, now_s: float) -> None:
        self.feed.stop()
        self._hanging.append(self.feed)
        self._retry_s = now_s + self._delay_s
