"""Notices what befalls the service itself, and writes it where sinks hear of it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.types import GapCause
from ovavel.service.capture.feed import CameraFeed, CameraState
from ovavel.service.config.site import Site
from ovavel.service.store import outbox
from ovavel.service.store.accounts import HOUR_US, read_accounts
from ovavel.service.store.care.age_clock import AgeClock
from ovavel.service.store.care.forget import forget
from ovavel.service.store.database import BALLAST_BYTES, Database, Transaction, rows
from ovavel.service.store.incidents import begin_incident, end_incident, report_moment
from ovavel.service.watch.board import coarse_s

__all__ = ["CAMERA_DOWN", "CLOCK_STEP", "DISK_LOW", "OVERLOAD", "SINK_DISABLED", "STARTED", "Monitor"]

CAMERA_DOWN, DISK_LOW, OVERLOAD = "camera down", "disk low", "overload"
CLOCK_STEP, STARTED, SINK_DISABLED = "clock step", "service started", "sink disabled"

DOWN_S = 30.0
"""A camera that is back within this was not down: a cable that was moved, a restart."""
LOW_BYTES = 4 * BALLAST_BYTES
OVERLOADED, OVERLOAD_S = 5, 60.0
"""So many windows dropped within so long are an overload; none for so long is its end."""
KEPT_US = 30 * 24 * HOUR_US
"""What was delivered, and what was left out, is known for so long."""
_STEP_US = 500_000
_LOOK_S, _COUNT_S, _FORGET_S = 1.0, 10.0, 3600.0

_log = logging.getLogger(__name__)


class Monitor:
    """Looks once a second, from a thread of its own."""

    def __init__(
        self,
        store: Database,
        site: Site,
        feeds: Mapping[str, CameraFeed],
        *,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Watch `feeds` and the disk of `store`."""
        self._store, self._site, self._feeds, self._free = store, site, feeds, free_bytes
        self._age = AgeClock.of(store, keep=False)
        self._well_s: dict[str, float] = {}
        self._offset_us: int | None = None
        self.clock_steps_s = 0.0
        """By how much the wall clock was set, forward and back, since the service started."""
        self._counted_s = self._forgot_s = float("-inf")
        self._drops: deque[tuple[float, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovavel-incidents", daemon=True)
        self.losses: dict[str, dict[str, int]] = {}
        """Camera → cause → seconds of this hour and the one before that were not decided: each that is dropped, and
        each without a window. Beyond a minute they are whole minutes."""

    def change(self, site: Site, feeds: Mapping[str, CameraFeed]) -> None:
        """Watch these from now on. What is reported of a camera that is there no more is over."""
        self._site, self._feeds = site, feeds

    def start(self, detail: str = "") -> None:
        """Report that the service has started, and begin to look."""
        self.moment(STARTED, detail)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_LOOK_S)

    def moment(self, incident: str, detail: str) -> None:
        """Report something that has no duration."""
        try:
            with self._store.write() as transaction:
                report_moment(
                    transaction, incident, now_us=time.time_ns() // 1000, sinks=self._site.sink, detail=_plain(detail)
                )
        except OvavelError as error:
            _log.warning("%s could not be reported: %s", incident, error)

    def look(self, *, now_s: float, now_us: int) -> None:
        """Compare with what was, at a moment of the monotonic and of the wall clock.

        Raises:
            OvavelError: the store cannot be used; what could not be written is noticed again.
        """
        feeds = self._feeds
        cameras = ((self._is_down(feed, now_s), camera, feed) for camera, feed in feeds.items())
        changes: list[tuple[bool, str, str | None, str]] = [
            (down, CAMERA_DOWN, camera, feed.why) for down, camera, feed in cameras if down is not None
        ]
        free = self._free(self._store.folder)
        if not LOW_BYTES <= free < 2 * LOW_BYTES:
            changes.append((free < LOW_BYTES, DISK_LOW, None, f"{free / 1e6:.0f} MB are free"))
        if now_s >= self._counted_s + _COUNT_S:
            self._counted_s = now_s
            dropped = self._count(now_s, now_us)
            if dropped == 0 or dropped >= OVERLOADED:
                changes.append((dropped > 0, OVERLOAD, None, f"{dropped} windows dropped within {OVERLOAD_S:.0f} s"))
        self._write(changes, feeds, now_us)
        self._clock(now_s, now_us)
        age_us = self._age.observe(now_us=now_us, monotonic_us=round(now_s * 1e6))
        if now_s >= self._forgot_s + _FORGET_S:
            self._forgot_s = now_s
            with self._store.write() as transaction:
                outbox.forget(transaction, before_us=age_us - KEPT_US, sinks=[each.id for each in self._site.sink])
                forget(transaction, before_us=age_us - round(self._site.keep.events_days * 24 * HOUR_US))

    def _write(
        self, changes: list[tuple[bool, str, str | None, str]], feeds: Mapping[str, CameraFeed], now_us: int
    ) -> None:
        """Begin and end what has begun and ended; a transaction only where there is something to write."""
        query = "SELECT kind, camera_id FROM incident WHERE end_us IS NULL"
        going_on: set[tuple[str, str | None]] = {(str(kind), camera) for kind, camera in rows(self._store.read, query)}
        news = [each for each in changes if each[0] != ((each[1], each[2]) in going_on)]
        news += [(False, kind, camera, "") for kind, camera in going_on if camera is not None and camera not in feeds]
        if not news:
            return
        with self._store.write() as transaction:
            for begins, incident, camera, detail in news:
                self._change(transaction, begins, incident, camera, detail, now_us)

    def _change(
        self, transaction: Transaction, begins: bool, incident: str, camera: str | None, detail: str, now_us: int
    ) -> None:
        sinks = self._site.sink
        if begins:
            begin_incident(transaction, incident, now_us=now_us, sinks=sinks, camera=camera, detail=_plain(detail))
        else:
            end_incident(transaction, incident, now_us=now_us, sinks=sinks, camera=camera)

    def _is_down(self, feed: CameraFeed, now_s: float) -> bool | None:
        """Whether a camera is down; None while that is not clear, so that what was reported stands."""
        camera = feed.camera.id
        away = feed.lost or feed.state in (CameraState.STARTING, CameraState.OFFLINE)
        if feed.camera.expected_offline or not away:
            self._well_s[camera] = now_s
            return False
        since_s = self._well_s.setdefault(camera, now_s)
        return True if (feed.lost or feed.restarts > 0) and now_s - since_s >= DOWN_S else None

    def _count(self, now_s: float, now_us: int) -> int:
        """Windows that were dropped of late because the encoder is too slow. Sums up all other losses, too."""
        hour_us = now_us - now_us % HOUR_US
        total, self.losses = 0, {}
        for camera in self._feeds:
            accounts = read_accounts(self._store.read, camera, from_us=hour_us - HOUR_US)
            losses_us = Counter[str]()
            for account in accounts:
                losses_us.update(account.gap_us)
                losses_us.update({cause: 1_000_000 * windows for cause, windows in account.dropped.items()})
                total += account.dropped.get(GapCause.ENCODER_TOO_SLOW, 0)
            seconds = {cause: coarse_s(us / 1e6) for cause, us in losses_us.items()}
            self.losses[camera] = {cause: count for cause, count in seconds.items() if count}
        if self._drops and total < self._drops[-1][1]:
            self._drops.clear()  # an hour has left the count
        self._drops.append((now_s, total))
        while self._drops[0][0] < now_s - OVERLOAD_S:
            self._drops.popleft()
        return total - self._drops[0][1]

    def _clock(self, now_s: float, now_us: int) -> None:
        offset_us = now_us - round(now_s * 1e6)
        step_us = 0 if self._offset_us is None else offset_us - self._offset_us
        self._offset_us = offset_us
        if abs(step_us) >= _STEP_US:
            self.clock_steps_s += abs(step_us) / 1e6
            self.moment(CLOCK_STEP, f"set {'forward' if step_us > 0 else 'back'} by {abs(step_us) / 1e6:.1f} s")

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                self.look(now_s=time.monotonic(), now_us=time.time_ns() // 1000)
            except Exception as error:  # noqa: BLE001 - what cannot be looked at now is looked at again in a second
                _log.warning("incidents could not be looked for: %s: %s", type(error).__name__, error)


def _plain(detail: str) -> str:
    return one_line(redacted(detail))
