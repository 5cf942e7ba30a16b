"""How long the archive is kept: by days and by size, and less of it where the disk is nearly full.

A day of a camera goes as a whole. Where the disk is nearly full, clips and snapshots go before it, and nothing is
written until there is room; only when none of them are left do its oldest days go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ovavel.runtime.archive.care import remove_day
from ovavel.runtime.archive.layout import CONTEXT, DAY_S
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.errors import OutputError
from ovavel.service.config.site import Keep
from ovavel.service.evidence.files import free_bytes
from ovavel.service.evidence.retention import GB, KindReport, Retention
from ovavel.service.store.care.age_clock import AgeClock
from ovavel.service.store.database import Database, one_row

__all__ = ["ArchiveRetention", "plan"]

_US = 1_000_000
_BLOCK = 512

_log = logging.getLogger(__name__)


def plan(days: Sequence[tuple[Day, int]], keep: Keep, *, now_us: int, lacking_bytes: int = 0) -> list[Day]:
    """Which of the `days`, each with its size in bytes, have to go; the oldest first, never one that is not over.

    Args:
        days: in any order.
        keep: the limits.
        now_us: the time by which things are old.
        lacking_bytes: how much more of the disk should be free, if nothing else makes room.
    """
    now_s, total, going = now_us // _US, sum(size for _, size in days), list[Day]()
    for day, size in sorted(days, key=lambda each: (each[0].start_s, each[0].camera)):
        end_s = day.start_s + DAY_S
        if end_s > now_s:
            continue
        too_old = end_s + keep.archive_days * DAY_S <= now_s
        if too_old or total > keep.archive_gb * GB or lacking_bytes > 0:
            going.append(day)
            total -= size
            lacking_bytes -= size
    return going


class ArchiveRetention:
    """Applies the limits of one site. Used by one thread; `kept` may be read by any."""

    def __init__(self, store: Database, evidence: Retention) -> None:
        """Keep to what `evidence` keeps to, which says how much of the disk stays free."""
        self._store, self._evidence = store, evidence
        self._age = AgeClock.of(store, keep=False)
        self._unreadable: list[str] = []
        self.kept: tuple[KindReport, ...] = ()
        """How much was left the last time, if there is an archive."""

    def apply(self, *, now_us: int, monotonic_us: int) -> int:
        """Remove what has to go at a moment of both clocks; returns how many days of cameras that were.

        A day that cannot be removed makes no room, so later ones may go in its place.

        Raises:
            InputError: what is there cannot be read.
            OutputError: a day cannot be removed; the others are.
        """
        now_us = self._age.observe(now_us=now_us, monotonic_us=monotonic_us)
        lacking = 0 if self._is_evidence_left() else self._evidence.min_free_bytes - self._free_bytes()
        days = dict(self._days())
        left, stuck = dict(days), dict[Day, OutputError]()
        while going := plan(list(left.items()), self._evidence.keep, now_us=now_us, lacking_bytes=lacking):
            for day in going:
                size = left.pop(day)
                try:
                    remove_day(day)
                    lacking -= size
                except OutputError as error:
                    stuck[day] = error
        self.kept = _report([*left.items(), *((day, days[day]) for day in stuck)])
        if stuck:
            raise next(iter(stuck.values()))
        return len(days) - len(left)

    def apply_now(self) -> int:
        """`apply` at this moment."""
        return self.apply(now_us=time.time_ns() // 1000, monotonic_us=time.monotonic_ns() // 1000)

    def may_grow(self) -> bool:
        """Whether as much of the disk is free as should be."""
        return self._free_bytes() >= self._evidence.min_free_bytes

    def _days(self) -> list[tuple[Day, int]]:
        if not (self._store.folder / CONTEXT).is_dir():
            return []
        listing = Archive(self._store.folder).listing()
        if listing.unreadable and listing.unreadable != self._unreadable:
            _log.warning("the limits of the archive do not hold for all of it: %s", listing.left_out)
        self._unreadable = listing.unreadable
        return [(day, _bytes_of(day)) for day in listing.days]

    def _is_evidence_left(self) -> bool:
        """Whether there are files of events that may be removed to make room."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM asset JOIN event ON event.id = event_id "
            "WHERE asset.state = 'ready' AND NOT pinned)"
        )
        return bool(one_row(self._store.read, query)[0])

    def _free_bytes(self) -> int:
        return free_bytes(self._store.folder)


def _report(days: Sequence[tuple[Day, int]]) -> tuple[KindReport, ...]:
    if not days:
        return ()
    size, oldest_us = sum(size for _, size in days), min(day.start_s for day, _ in days) * _US
    return (KindReport(kind="archive", files=len(days), bytes=size, pinned_bytes=0, oldest_us=oldest_us),)


def _bytes_of(day: Day) -> int:
    """Space of a day on the disk: its files are sparse."""
    try:
        return sum(file.stat().st_blocks * _BLOCK for file in day.folder.iterdir())
    except OSError:
        return 0  # it was removed meanwhile, or cannot be read: nothing is known of its size
