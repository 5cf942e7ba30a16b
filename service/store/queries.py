"""What is asked of the store: events, page by page, and what is being watched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ovavel.service.store.database import Transaction, one_row, rows
from ovavel.service.store.events import EventBody, event_of

__all__ = [
    "Bar",
    "EventFilter",
    "EventPage",
    "asset_states",
    "count_events",
    "find_event",
    "label_counts",
    "last_seq",
    "list_bars",
    "list_events",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; None: any."""

    camera: str | None = None
    label: str | None = None
    state: str | None = None
    reviewed: bool | None = None
    verdict: str | None = None
    pinned: bool | None = None
    from_us: int | None = None
    to_us: int | None = None
    """Events that begin before."""


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some events, newest first."""

    events: tuple[EventBody, ...]
    cursor: str | None
    """For the next page; None on the last one."""


def list_events(
    connection: Transaction, where: EventFilter, *, cursor: str | None = None, limit: int = 50
) -> EventPage:
    """The events that match, newest first, `limit` at most, after `cursor`.

    Raises:
        ValueError: it is no cursor.
    """
    conditions, values = _conditions(where)
    if cursor is not None:
        start_us, _, event_id = cursor.partition("-")
        if not re.fullmatch("[0-9]{1,18}", start_us):
            raise ValueError(f"{cursor!r} is no cursor of an earlier page")
        conditions.append("(start_us, id) < (?, ?)")
        values += [int(start_us), event_id]
    found = rows(
        connection,
        f"SELECT id FROM event WHERE {' AND '.join(conditions)} ORDER BY start_us DESC, id DESC LIMIT ?",  # noqa: S608
        (*values, limit + 1),
    )
    events = tuple(event_of(connection, event_id) for (event_id,) in found[:limit])
    more = len(found) > limit
    return EventPage(events=events, cursor=f"{events[-1].start_us}-{events[-1].id}" if more else None)


def _conditions(where: EventFilter) -> tuple[list[str], list[object]]:
    """SQL and values."""
    conditions, values = ["1"], list[object]()
    for column, sign, value in (
        ("camera_id", "=", where.camera),
        ("label", "=", where.label),
        ("state", "=", where.state),
        ("verdict", "=", where.verdict),
        ("pinned", "=", where.pinned),
        ("start_us", ">=", where.from_us),
        ("start_us", "<", where.to_us),
    ):
        if value is not None:
            conditions.append(f"{column} {sign} ?")
            values.append(value)
    if where.reviewed is not None:
        conditions.append(f"reviewed_us IS {'NOT ' if where.reviewed else ''}NULL")
    return conditions, values


def count_events(connection: Transaction, where: EventFilter) -> int:
    """How many events match."""
    conditions, values = _conditions(where)
    query = f"SELECT count(*) FROM event WHERE {' AND '.join(conditions)}"  # noqa: S608 - fixed texts
    (count,) = one_row(connection, query, values)
    return int(count)


class Bar(NamedTuple):
    """An event on a timeline."""

    id: str
    camera: str
    label: str
    state: str
    start_us: int
    end_us: int


def list_bars(connection: Transaction, where: EventFilter, *, limit: int) -> list[Bar]:
    """The events that match and were not retracted, oldest first, the newest `limit` at most."""
    conditions, values = _conditions(where)
    found = rows(
        connection,
        "SELECT id, camera_id, label, state, start_us, end_us FROM event "  # noqa: S608 - fixed texts
        f"WHERE {' AND '.join(conditions)} AND state <> 'retracted' ORDER BY start_us DESC LIMIT ?",
        (*values, limit),
    )
    return [Bar(*row) for row in reversed(found)]


def label_counts(connection: Transaction, *, from_us: int) -> dict[str, int]:
    """Label → events that began since, without those that were retracted."""
    query = "SELECT label, count(*) FROM event WHERE start_us >= ? AND state <> 'retracted' GROUP BY label"
    return dict(rows(connection, query, (from_us,)))


def asset_states(connection: Transaction, events: Sequence[str]) -> dict[str, dict[str, str]]:
    """Event → kind of asset → its state."""
    found: dict[str, dict[str, str]] = {}
    query = f"SELECT event_id, kind, state FROM asset WHERE event_id IN ({','.join('?' * len(events))})"  # noqa: S608
    for event, kind, state in rows(connection, query, events):
        found.setdefault(event, {})[kind] = state
    return found


def find_event(connection: Transaction, event_id: str) -> EventBody | None:
    """The event as it is now; None if there is none of this id."""
    found = rows(connection, "SELECT 1 FROM event WHERE id = ?", (event_id,))
    return event_of(connection, event_id) if found else None


def last_seq(connection: Transaction) -> int:
    """The newest row of the event log; 0 without any."""
    (seq,) = one_row(connection, "SELECT coalesce(max(seq), 0) FROM event_log")
    return int(seq)
