"""How long evidence is kept: by days and by size, and less of it where the disk is nearly full. What is pinned stays.

Clips go first, then snapshots and spectrograms, and events last. Days are those of a clock that is known to be right:
one that was just set years ahead makes nothing old (`AgeClock`). A row says that its file is gone before it is: a crash
in between leaves a file without a row, which the next start removes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from ovavel.runtime.errors import OutputError
from ovavel.service.config.site import Keep
from ovavel.service.evidence import files
from ovavel.service.evidence.deletion import delete_events, remove_files
from ovavel.service.store.accounts import CLOCKS_US
from ovavel.service.store.care.age_clock import AgeClock
from ovavel.service.store.database import BALLAST, BALLAST_BYTES, FILE, Database, Transaction, one_row, rows

__all__ = ["GB", "Deletion", "NoRoomError", "KindReport", "Retention", "StorageReport", "plan"]

GB = 1_000_000_000
_DAY_US = 86_400_000_000
_BATCH = 500
_EVENTS_AT_ONCE = 100
_NEXT = 20
_PROTECTED_DAYS = 7
"""An event that is younger is never removed for want of space."""
_SMALL_DISK = 10
"""Of a disk that is small, a part of so many stays free."""
_FREE_PAGES = 16
"""Of the store: with so many, new events need no more of the disk."""

Why = Literal["older than its days", "more than its space", "the disk is nearly full"]
_KINDS = {"clip": ("clip",), "snapshot": ("snapshot", "sound")}
"""What counts together against a limit, in the order in which it goes."""


class NoRoomError(OutputError):
    """There is no room for another file, and nothing that may be removed for it."""


class Deletion(Struct, frozen=True, kw_only=True):
    """An asset that goes, or goes next."""

    asset: int
    event_id: str
    kind: str
    path: str
    bytes: int
    end_us: int
    """End of its event."""
    due_us: int
    """When its days are over."""
    why: Why


class KindReport(Struct, frozen=True, kw_only=True):
    """Files of one kind."""

    kind: str
    files: int
    bytes: int
    pinned_bytes: int
    """Of these, what is never removed."""
    oldest_us: int | None
    """End of the oldest event that has one."""


class StorageReport(Struct, frozen=True, kw_only=True):
    """What is kept, in how much space, and what goes next."""

    free_bytes: int
    min_free_bytes: int
    """Below this, clips and then snapshots are removed."""
    store_bytes: int
    """The store itself: events, accounts, what is to be delivered."""
    ballast_held: bool
    kinds: tuple[KindReport, ...]
    next: tuple[Deletion, ...]
    """The next deletions for age, in their order; those for space or a full disk take the oldest first, too."""
    waits_s: float
    """How long nothing is removed for its age by a wall clock that was set far ahead; 0 where it is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    days: float
    bytes: float


def _limits(keep: Keep) -> dict[str, _Limit]:
    return {
        "clip": _Limit(days=keep.clips_days, bytes=keep.clips_gb * GB),
        "snapshot": _Limit(days=keep.snapshots_days, bytes=keep.snapshots_gb * GB),
    }


def plan(connection: Transaction, keep: Keep, *, now_us: int, lacking_bytes: int = 0) -> list[Deletion]:
    """What has to go now, the oldest first, up to a few hundred.

    Args:
        connection: of the store.
        keep: the limits.
        now_us: the wall clock.
        lacking_bytes: how much more of the disk should be free.
    """
    found: list[Deletion] = []
    for group, limit in _limits(keep).items():
        kept = _kept_bytes(connection, _KINDS[group])
        for each in _oldest(connection, _KINDS[group], limit, now_us):
            if each.due_us <= now_us:
                why: Why = "older than its days"
            elif kept > limit.bytes:
                why = "more than its space"
            elif lacking_bytes > 0:
                why = "the disk is nearly full"
            else:
                break
            kept -= each.bytes
            lacking_bytes -= each.bytes
            found.append(msgspec.structs.replace(each, why=why))
            if len(found) == _BATCH:
                return found
    return found


def _oldest(connection: Transaction, kinds: Sequence[str], limit: _Limit, now_us: int) -> Iterator[Deletion]:
    """What may be removed of these kinds, the oldest first."""
    marks = ", ".join("?" * len(kinds))
    for asset, event_id, kind, path, size, end_us in rows(
        connection,
        "SELECT asset.id, event.id, kind, path, bytes, event.end_us FROM asset JOIN event ON event.id = event_id "  # noqa: S608
        f"WHERE asset.state = 'ready' AND NOT pinned AND kind IN ({marks}) "
        "ORDER BY event.end_us < ?, event.end_us, asset.id LIMIT ?",
        (*kinds, _dated_from(now_us), _BATCH),
    ):
        yield Deletion(
            asset=asset,
            event_id=event_id,
            kind=kind,
            path=path,
            bytes=size,
            end_us=end_us,
            # A clock that was wrong may have put an event into the future, or to 1970; then its days begin now.
            due_us=(end_us if _dated_from(now_us) <= end_us <= now_us else now_us) + round(limit.days * _DAY_US),
            why="older than its days",
        )


def _kept_bytes(connection: Transaction, kinds: Sequence[str]) -> int:
    marks = ", ".join("?" * len(kinds))
    query = f"SELECT coalesce(sum(bytes), 0) FROM asset WHERE state = 'ready' AND kind IN ({marks})"  # noqa: S608
    return int(one_row(connection, query, tuple(kinds))[0])


def _dated_from(now_us: int) -> int:
    """Events that ended before have no known age: the clock was not set yet, as at the boot of a small machine."""
    return CLOCKS_US if now_us >= CLOCKS_US else 0


class Retention:
    """Applies the limits of one site. Used by one thread, but for `report`."""

    def __init__(self, store: Database, keep: Keep) -> None:
        self._store, self.keep = store, keep
        self._age = AgeClock.of(store, keep=True)

    @property
    def min_free_bytes(self) -> int:
        """Space that stays free: what the site says, or a tenth of a small disk."""
        return min(round(self.keep.min_free_gb * GB), files.disk_bytes(self._store.folder) // _SMALL_DISK)

    @property
    def lacking_bytes(self) -> int:
        """How much more of the disk should be free; less than 0 where enough is."""
        return self.min_free_bytes - self._free_bytes()

    def apply(self, *, now_us: int, monotonic_us: int) -> int:
        """Remove what has to go at a moment of both clocks; returns how many files and events that were.

        Raises:
            OutputError: the store cannot be written now.
        """
        removed, now_us = 0, self._age.observe(now_us=now_us, monotonic_us=monotonic_us)
        while True:
            lacking = self.lacking_bytes
            read = self._store.read
            if not plan(read, self.keep, now_us=now_us, lacking_bytes=lacking) and not self._old_events(
                read, now_us, lacking
            ):
                return removed
            with self._store.write() as transaction:
                going = plan(transaction, self.keep, now_us=now_us, lacking_bytes=lacking)
                for each in going:
                    transaction.execute(
                        "UPDATE asset SET state = 'removed', cause = ?, path = NULL WHERE id = ?",
                        (each.why, each.asset),
                    )
                old = () if going else self._old_events(transaction, now_us, lacking)
                paths = [each.path for each in going] + delete_events(transaction, old)
            remove_files(self._store, paths)
            removed += len(going) + len(old)

    def apply_now(self) -> int:
        """`apply` at this moment."""
        return self.apply(now_us=time.time_ns() // 1000, monotonic_us=time.monotonic_ns() // 1000)

    def may_grow(self) -> bool:
        """Whether a clip may be written: a little more than what should stay free may be taken for a moment."""
        return self._free_bytes() >= self.min_free_bytes // 2

    def make_room(self, size: int) -> None:
        """Make sure that a file of `size` bytes fits beside what should stay free.

        Raises:
            NoRoomError: it does not, and nothing more may be removed.
            OutputError: the store cannot be written now.
        """
        if self._free_bytes() - size >= self.min_free_bytes:
            return
        self.apply_now()
        if self._free_bytes() - size < self.min_free_bytes:
            raise NoRoomError("the disk is nearly full; free some space, or lower keep.min_free_gb")

    def report(self, *, now_us: int, upcoming: bool = True) -> StorageReport:
        """What there is now; without the deletions that are `upcoming`, which take long to find, where nobody asks."""
        read, folder = self._store.read, self._store.folder
        found = rows(
            read,
            "SELECT kind, count(*), sum(bytes), sum(bytes * pinned), min(end_us) FROM "
            "(SELECT kind, bytes, pinned, event.end_us AS end_us FROM asset JOIN event ON event.id = event_id "
            "WHERE asset.state = 'ready') GROUP BY kind ORDER BY kind",
        )
        names = ("kind", "files", "bytes", "pinned_bytes", "oldest_us")
        coming = [
            each
            for group, limit in (_limits(self.keep).items() if upcoming else ())
            for each in _oldest(read, _KINDS[group], limit, now_us)
        ]
        return StorageReport(
            free_bytes=self._free_bytes(),
            min_free_bytes=self.min_free_bytes,
            store_bytes=sum(_size(folder / f"{FILE}{end}") for end in ("", "-wal", "-shm")),
            ballast_held=_size(folder / BALLAST) == BALLAST_BYTES,
            kinds=tuple(KindReport(**dict(zip(names, row, strict=True))) for row in found),
            next=tuple(sorted(coming, key=lambda each: (each.due_us, each.asset))[:_NEXT]),
            waits_s=self._age.waits_s,
        )

    def _old_events(self, connection: Transaction, now_us: int, lacking_bytes: int) -> list[str]:
        """Events that go: those whose days are over and, where nothing else makes room for new ones, the oldest.

        The disk gains nothing by that, but pages of the store are free again. What somebody still waits for stays.
        """
        before_us = now_us - round(self.keep.events_days * _DAY_US)
        no_room = lacking_bytes > 0 and self._free_bytes() < BALLAST_BYTES // 4
        if no_room and one_row(connection, "PRAGMA freelist_count")[0] < _FREE_PAGES:
            before_us = max(before_us, now_us - _PROTECTED_DAYS * _DAY_US)
        return [
            event
            for (event,) in rows(
                connection,
                "SELECT id FROM event WHERE NOT pinned AND state <> 'open' AND end_us BETWEEN ? AND ? AND NOT EXISTS "
                "(SELECT 1 FROM outbox WHERE outbox.event_id = event.id AND outbox.state = 'pending') AND NOT EXISTS "
                "(SELECT 1 FROM asset WHERE asset.event_id = event.id AND asset.state = 'pending') "
                "ORDER BY end_us LIMIT ?",
                (_dated_from(now_us), before_us, _EVENTS_AT_ONCE),
            )
        ]

    def _free_bytes(self) -> int:
        return files.free_bytes(self._store.folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
