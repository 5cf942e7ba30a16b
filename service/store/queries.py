"""What is asked of the store: events, page by page, and what is being watched."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ovavel.service.store.database import Transaction, one_row, rows
from ovavel.service.store.events import EventBody, event_of

__all__ = ["EventFilter", "EventPage", "find_event", "last_seq", "list_events"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; None: any."""

    camera: str | None = None
    label: str | None = None
    state: str | None = None
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
    conditions, values = ["1"], []
    for column, sign, value in (
        ("camera_id", "=", where.camera),
        ("label", "=", where.label),
        ("state", "=", where.state),
        ("start_us", ">=", where.from_us),
        ("start_us", "<", where.to_us),
    ):
        if value is not None:
            conditions.append(f"{column} {sign} ?")
            values.append(value)
    if cursor is not None:
        start_us, _, event_id = cursor.partition("-")
        if not start_us.isdecimal():
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


def find_event(connection: Transaction, event_id: str) -> EventBody | None:
    """The event as it is now; None if there is none of this id."""
    found = rows(connection, "SELECT 1 FROM event WHERE id = ?", (event_id,))
    return event_of(connection, event_id) if found else None


def last_seq(connection: Transaction) -> int:
    """The newest row of the event log; 0 without any."""
    (seq,) = one_row(connection, "SELECT coalesce(max(seq), 0) FROM event_log")
    return int(seq)
