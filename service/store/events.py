"""Events and their log: each piece of news is a revision, and what others are to hear of it is written with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ovavel.service.store.database import Transaction, one_row, rows
from ovavel.service.store.outbox import Subscriber, enqueue

__all__ = ["EventBody", "EventNews", "LogEntry", "event_of", "log_after", "log_of", "record", "revise"]

EventKind = Literal["start", "update", "end", "retract", "review", "verdict", "pin"]


class EventNews(Struct, frozen=True, kw_only=True):
    """What a camera's tracker reports, on the wall clock."""

    kind: Literal["start", "update", "end", "retract"]
    run_id: str
    session_event_id: int
    """Number of the event in its run."""
    label: str
    start_us: int
    end_us: int
    peak_margin: float
    peak_probability: float | None = None
    end_cause: str | None = None
    """Why it ended, where that was not the end of what was seen and heard."""


class EventBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event at one revision, as the log, the API and every sink have it."""

    id: str
    revision: int
    kind: EventKind
    camera: str
    label: str
    state: Literal["open", "ended", "retracted"]
    start_us: int
    end_us: int
    peak_margin: float
    peak_probability: float | None = None
    end_cause: str | None = None
    reviewed_us: int | None = None
    reviewed_by: str | None = None
    verdict: str | None = None
    pinned: bool = False


class LogEntry(Struct, frozen=True, kw_only=True):
    """A row of the event log."""

    seq: int
    """Counts from 1 without holes."""
    utc_us: int
    """When it was committed."""
    body: EventBody


_STATES = {"start": "open", "update": "open", "end": "ended", "retract": "retracted"}
_COLUMNS = (
    "id, revision, camera_id, label, state, start_us, end_us, peak_margin, peak_probability, end_cause, reviewed_us, "
    "reviewed_by, verdict, pinned"
)


def record(
    transaction: Transaction, news: EventNews, *, event_id: str, now_us: int, sinks: Sequence[Subscriber]
) -> LogEntry:
    """Write one piece of news: the event, its revision in the log, and a row of the outbox for each sink that wants it.

    Args:
        transaction: of the store.
        news: what happened.
        event_id: used where it starts; later news finds its event by run and number.
        now_us: the wall clock.
        sinks: those that may hear of it.

    Raises:
        ValueError: an event starts twice, or news comes of one that has not started or has ended.
    """
    found = transaction.execute(
        "SELECT id, state, camera_id FROM event WHERE run_id = ? AND session_event_id = ?",
        (news.run_id, news.session_event_id),
    ).fetchone()
    if news.kind == "start":
        if found:
            raise ValueError(f"the event {news.session_event_id} of run {news.run_id} has started already")
        transaction.execute(
            "INSERT INTO event (id, run_id, camera_id, session_event_id, label, state, revision, start_us, end_us, "
            "peak_margin, peak_probability) SELECT ?, id, camera_id, ?, ?, 'open', 0, ?, ?, ?, ? FROM run WHERE id = ?",
            (
                *(event_id, news.session_event_id, news.label, news.start_us, news.end_us),
                *(news.peak_margin, news.peak_probability, news.run_id),
            ),
        )
    else:
        if not found or found[1] != "open":
            what = f"has {found[1]} already" if found else "has not started"
            raise ValueError(f"{news.kind} of the event {news.session_event_id} of run {news.run_id}, which {what}")
        event_id = str(found[0])
        transaction.execute(
            "UPDATE event SET label = ?, state = ?, start_us = ?, end_us = ?, peak_margin = ?, peak_probability = ?, "
            "end_cause = ? WHERE id = ?",
            (
                *(news.label, _STATES[news.kind], news.start_us, news.end_us),
                *(news.peak_margin, news.peak_probability, news.end_cause, event_id),
            ),
        )
    return _log(transaction, event_id, news.kind, now_us=now_us, sinks=sinks)


def revise(
    transaction: Transaction,
    event_id: str,
    kind: Literal["review", "verdict", "pin"],
    *,
    now_us: int,
    by: str = "",
    reviewed: bool = True,
    verdict: str | None = None,
    pinned: bool = False,
    sinks: Sequence[Subscriber] = (),
) -> LogEntry | None:
    """Write what a person says of an event; None if there is no such event.

    Many parameters: those of the three kinds, each of which uses its own.
    """
    match kind:
        case "review":
            change, values = "reviewed_us = ?, reviewed_by = ?", (now_us, by) if reviewed else (None, None)
        case "verdict":
            change, values = "verdict = ?, reviewed_us = ?, reviewed_by = ?", (verdict, now_us, by)  # type: ignore[assignment]
        case "pin":
            change, values = "pinned = ?", (int(pinned),)  # type: ignore[assignment]
    transaction.execute(f"UPDATE event SET {change} WHERE id = ?", (*values, event_id))  # noqa: S608 - fixed texts
    if not transaction.changes():
        return None
    return _log(transaction, event_id, kind, now_us=now_us, sinks=sinks)


def _log(
    transaction: Transaction, event_id: str, kind: EventKind, *, now_us: int, sinks: Sequence[Subscriber]
) -> LogEntry:
    transaction.execute("UPDATE event SET revision = revision + 1 WHERE id = ?", (event_id,))
    row = one_row(transaction, f"SELECT {_COLUMNS} FROM event WHERE id = ?", (event_id,))  # noqa: S608
    body = _body(row, kind)
    encoded = msgspec.json.encode(body).decode()
    transaction.execute(
        "INSERT INTO event_log (event_id, revision, kind, utc_us, body) VALUES (?, ?, ?, ?, ?)",
        (event_id, body.revision, kind, now_us, encoded),
    )
    entry = LogEntry(seq=transaction.last_insert_rowid(), utc_us=now_us, body=body)
    for sink in sinks:
        if sink.wants(kind, body.camera, body.label):
            enqueue(transaction, sink.id, body, encoded, key=f"{body.camera}\n{body.label}", now_us=now_us)
    return entry


def _body(row: Sequence[object], kind: EventKind) -> EventBody:
    names = [name.strip() for name in _COLUMNS.split(",")]
    values = dict(zip(names, row, strict=True))
    values["camera"] = values.pop("camera_id")
    values["pinned"] = bool(values["pinned"])
    return msgspec.convert({**values, "kind": kind}, EventBody)


def event_of(connection: Transaction, event_id: str) -> EventBody:
    """The event as its newest revision has it.

    Raises:
        LookupError: there is none of this id.
    """
    query = "SELECT body FROM event_log WHERE event_id = ? ORDER BY revision DESC LIMIT 1"
    (body,) = one_row(connection, query, (event_id,))
    return msgspec.json.decode(body, type=EventBody)


def log_of(connection: Transaction, event_id: str) -> list[EventBody]:
    """All revisions of one event, oldest first."""
    found = rows(connection, "SELECT body FROM event_log WHERE event_id = ? ORDER BY revision", (event_id,))
    return [msgspec.json.decode(body, type=EventBody) for (body,) in found]


def log_after(connection: Transaction, seq: int, *, limit: int = 500) -> list[LogEntry]:
    """The entries of the log after `seq`, oldest first, `limit` at most."""
    found = rows(connection, "SELECT seq, utc_us, body FROM event_log WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
    return [
        LogEntry(seq=each, utc_us=utc_us, body=msgspec.json.decode(body, type=EventBody))
        for each, utc_us, body in found
    ]
