"""What holds in every store, whatever died or failed: checked by `ovavel serve doctor` and by tests of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ovavel.service.store.accounts import HOUR_US, read_accounts
from ovavel.service.store.database import Transaction, one_row, rows

__all__ = ["violations"]

_MOST = 20
"""So many of a kind are listed; a damaged store has thousands."""

_QUERIES = {
    "run {} has ended, but its event {} has not": (
        "SELECT run.id, event.id FROM event JOIN run ON run.id = event.run_id "
        "WHERE event.state = 'open' AND run.ended_us IS NOT NULL"
    ),
    "camera {} has {} open runs": (
        "SELECT camera_id, count(*) FROM run WHERE ended_us IS NULL GROUP BY camera_id HAVING count(*) > 1"
    ),
    "event {} is at revision {}, but its log has {} entries up to {}": (
        "SELECT event.id, event.revision, count(seq), max(event_log.revision) FROM event "
        "LEFT JOIN event_log ON event_log.event_id = event.id GROUP BY event.id "
        "HAVING count(seq) <> event.revision OR max(event_log.revision) <> event.revision"
    ),
    "event {} is {}, but its log has {} starts and {} ends": (
        "SELECT * FROM (SELECT event.id, state, sum(kind = 'start') AS starts, sum(kind IN ('end', 'retract')) AS ends "
        "FROM event JOIN event_log ON event_log.event_id = event.id GROUP BY event.id) "
        "WHERE starts <> 1 OR ends <> (state <> 'open')"
    ),
    "event {} has a log, but no row": (
        "SELECT DISTINCT event_id FROM event_log WHERE event_id NOT IN (SELECT id FROM event)"
    ),
}


def violations(connection: Transaction, folder: Path | None = None) -> list[str]:
    """List what does not hold; nothing in a sound store.

    Args:
        connection: of the store. It may be in use by a service.
        folder: where the store lies; the files that it names are checked too.
    """
    return list(_found(connection, folder))


def _found(connection: Transaction, folder: Path | None) -> Iterator[str]:
    sound = [text for (text,) in rows(connection, f"PRAGMA integrity_check({_MOST})")]
    if sound != ["ok"]:
        yield from (f"the file is damaged: {text}" for text in sound)
        return  # what it says of itself cannot be trusted
    for table, row, parent, _ in rows(connection, "PRAGMA foreign_key_check")[:_MOST]:
        yield f"row {row} of {table} belongs to a {parent} that does not exist"
    for text, query in _QUERIES.items():
        yield from (text.format(*row) for row in rows(connection, f"{query} LIMIT {_MOST}"))
    yield from _holes(connection)
    for camera, created_us, accounted_us in rows(connection, "SELECT id, created_us, accounted_us FROM camera"):
        yield from _unbalanced(connection, camera, created_us, accounted_us)
    if folder:
        yield from _without_files(connection, folder)


def _holes(connection: Transaction) -> Iterator[str]:
    (count,) = one_row(connection, "SELECT count(*) FROM event_log")
    (last,) = one_row(connection, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event_log'")
    (trimmed,) = one_row(connection, "SELECT entries FROM event_log_trimmed")
    if count + trimmed != last:
        yield (
            f"the event log has {count} entries up to {last}, and {trimmed} were deleted with their events: "
            f"{last - count - trimmed} are missing"
        )


def _unbalanced(connection: Transaction, camera: str, created_us: int, accounted_us: int) -> Iterator[str]:
    """Hours whose parts do not add up to the time that the camera was known in them."""
    last_us = max(created_us, accounted_us - 1)
    accounts = read_accounts(connection, camera, from_us=0, to_us=1 << 62)
    totals = {account.hour_us: account.total_us for account in accounts}
    wrong = 0
    for hour_us in range(created_us - created_us % HOUR_US, last_us + 1, HOUR_US):
        expected = max(0, min(hour_us + HOUR_US, accounted_us) - max(hour_us, created_us))
        found = totals.pop(hour_us, 0)
        if found != expected and (wrong := wrong + 1) <= _MOST:
            yield f"camera {camera} accounts for {found} of {expected} µs in the hour {hour_us}"
    if any(totals.values()):
        yield f"camera {camera} accounts for time in which it was not watched: hours {sorted(totals)[:_MOST]}"


def _without_files(connection: Transaction, folder: Path) -> Iterator[str]:
    for event, kind, path, size in rows(
        connection, "SELECT event_id, kind, path, bytes FROM asset WHERE state = 'ready' ORDER BY id"
    ):
        file = folder / path
        if not file.is_file():
            yield f"the {kind} of event {event} is missing: {file}"
        elif size is not None and file.stat().st_size != size:
            yield f"the {kind} of event {event} has {file.stat().st_size} bytes instead of {size}: {file}"
