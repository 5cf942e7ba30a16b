"""Connections to devices and streams that notice a loss and reconnect."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator

from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.types import Notice

__all__ = ["ASLEEP_S", "FROZEN_S", "GAP_EVERY_S", "Feed", "Connection"]

FROZEN_S = 2.5
"""A feed without data for this long is lost; a loss is noticed within 3 s."""
GAP_EVERY_S = 0.25
"""While it is lost, so often a source declares the time that has passed."""
ASLEEP_S = 1.0
"""A reader that has not checked for this long was stopped or starved, and cannot judge how long data was missing."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 10.0
CONNECT_S = 15.0
"""An attempt without data for this long has failed, even if it still hangs in a driver."""
MOST_HANGING = 3
"""With this many attempts hanging in a driver, the next one waits until one returns."""

EXIT_S = 3.0
"""How long a program waits for its feeds at exit: a little longer than the time-out of a network read."""

_at_work: set[Feed] = set()


def end_all(within_s: float) -> bool:
    """Ask every feed to end, wait at most `within_s` in total, and return whether all of them ended.

    FFmpeg calls back into Python to check whether a read has timed out. After the interpreter has shut down this
    crashes the process, so the feeds must end first.
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
    """One connection to a device or stream, served by a daemon thread, so that a blocked read blocks nothing else.

    A subclass opens and reads in `_serve`, calls `bring` for all data, and returns soon once `stopping` is set.
    """

    def __init__(self, name: str, *, address: str = "") -> None:
        """Prepare a feed called `name`; `start` connects. Secrets in `address` are not shown in `why`."""
        self.opened = threading.Event()
        """Set when data has arrived, or the feed has failed."""
        self.brought_s = 0.0
        """Monotonic clock when data last arrived."""
        self.ended = threading.Event()
        self.stopping = threading.Event()
        self.error: Exception | None = None
        """The error that ended it, if any. Its text may contain a password."""
        self._address = address
        self._thread = threading.Thread(target=self._run, name=f"ovavel {name}", daemon=True)

    @property
    def why(self) -> str:
        """Why it ended, without secrets."""
        if self.error is None:
            return "it ended"
        reason = getattr(self.error, "strerror", None) or str(self.error) or type(self.error).__name__
        return redacted(reason, self._address)

    def start(self) -> None:
        """Start connecting and return at once."""
        _at_work.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end without waiting. Its own thread releases its resources."""
        self.stopping.set()

    def bring(self) -> None:
        """Record that data arrived."""
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
    """A feed that is replaced when it is lost, after 1, 2, 4 … at most 10 seconds."""

    def __init__(self, name: str, feed: Feed, connect: Callable[[], Feed], now_s: float) -> None:
        """Watch the started `feed` from `now_s` on; `connect` creates and starts the next one."""
        self.feed = feed
        self.lost = False
        self.newest_s = now_s
        """Monotonic clock when its data was last taken."""
        self._name, self._connect = name, connect
        self._news: list[str] = []
        self._delay_s = FIRST_DELAY_S
        self._retry_s: float | None = None
        """When to reconnect; None while a feed is running."""
        self._tried_s = now_s
        self._hanging: list[Feed] = []
        self._why = ""  # the newest reason that was reported
        self._awake_s = now_s

    def arrived(self, now_s: float) -> bool:
        """Record that the feed delivered data; return whether it had been lost."""
        back, self.lost = self.lost, False
        self.newest_s = self._awake_s = now_s
        self._delay_s = FIRST_DELAY_S
        if back:
            self._news.append(f"{self._name} is back")
        return back

    def check(self, now_s: float) -> None:
        """Notice a loss, and reconnect when it is time to."""
        asleep, self._awake_s = now_s - self._awake_s > ASLEEP_S, now_s
        if asleep:  # nothing was taken because this process did not run
            self.newest_s = now_s
        if self._retry_s is None and self.feed.stopping.is_set():
            return  # another thread asked it to end
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
        """Stop the feed."""
        self.feed.stop()

    def _report(self, what: str, silent_s: float) -> None:
        """Report why the feed is dropped, unless that reason was the last one reported."""
        why = self.feed.why if self.feed.ended.is_set() else f"no data for {silent_s:g} s"
        if why != self._why:
            self._why = why
            self._news.append(f"{self._name} {what} ({why}); trying to open it again")

    def _drop(self, now_s: float) -> None:
        self.feed.stop()
        self._hanging.append(self.feed)
        self._retry_s = now_s + self._delay_s
