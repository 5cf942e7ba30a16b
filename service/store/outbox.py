"""What has still to be delivered: rows written with the news itself, so that no crash separates the two.

Each receiver gets an event's revisions in their order, each at least once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ovavel.service.store.database import Transaction, one_row, rows

__all__ = [
    "Backlog",
    "Delivery",
    "Earlier",
    "Subscriber",
    "backlog",
    "delivered",
    "due",
    "due_now",
    "earlier",
    "enqueue",
    "failed",
    "forget",
    "last_delivered_us",
    "retry",
    "suppressed",
]


class Subscriber(Protocol):
    """A sink as the store knows it."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    def wants(self, kind: str, camera: str, label: str) -> bool:
        """Whether this piece of news is for it."""
        ...

    def wants_incident(self, camera: str | None) -> bool:
        """Whether it hears of incidents of this camera, or of the site as a whole."""
        ...


class _Body(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One revision of one event that one sink has not got yet."""

    id: int
    sink: str
    key: str
    event_id: str
    revision: int
    body: str
    """JSON of an `EventBody` or an `IncidentBody`."""
    created_us: int
    attempts: int
    """How often it was tried."""

    @property
    def is_incident(self) -> bool:
        """Whether it is about the service itself."""
        return self.key.startswith("\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a sink has not got yet."""

    pending: int
    oldest_us: int | None
    """When the oldest was written; None without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What became of an earlier revision of an event."""

    state: str
    cause: str
    """Why it was suppressed or failed; empty where it was delivered."""


def enqueue(transaction: Transaction, sink: str, body: _Body, encoded: str, *, key: str, now_us: int) -> None:
    """Add one revision for one sink, due at once."""
    transaction.execute(
        "INSERT INTO outbox (sink, key, event_id, revision, body, created_us, next_us, state) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'pending')",
        (sink, key, body.id, body.revision, encoded, now_us, now_us),
    )


def due(connection: Transaction, sink: str, *, now_us: int, limit: int = 20) -> list[Delivery]:
    """What may be sent now, oldest first: of each event the earliest revision that is pending, if its time has come."""
    found = rows(
        connection,
        "SELECT id, sink, key, event_id, revision, body, created_us, attempts FROM outbox AS one "
        "WHERE sink = ? AND state = 'pending' AND next_us <= ? AND NOT EXISTS (SELECT 1 FROM outbox AS earlier "
        "WHERE earlier.sink = one.sink AND earlier.event_id = one.event_id AND earlier.revision < one.revision "
        "AND earlier.state = 'pending') ORDER BY id LIMIT ?",
        (sink, now_us, limit),
    )
    names = ("id", "sink", "key", "event_id", "revision", "body", "created_us", "attempts")
    return [Delivery(**dict(zip(names, row, strict=True))) for row in found]


def delivered(transaction: Transaction, delivery: Delivery, *, now_us: int) -> None:
    """The sink has it."""
    _end(transaction, delivery, "delivered", now_us, None)


def suppressed(transaction: Transaction, delivery: Delivery, *, now_us: int, cause: str) -> None:
    """A rule (cooldown, quiet hours, snooze) keeps it from the sink; it is counted by cause."""
    _end(transaction, delivery, "suppressed", now_us, cause)


def failed(transaction: Transaction, delivery: Delivery, *, now_us: int, error: str) -> None:
    """The sink will never take it."""
    _end(transaction, delivery, "failed", now_us, error)


def retry(transaction: Transaction, delivery: Delivery, *, next_us: int, error: str) -> None:
    """The sink did not take it; it is due again at `next_us`."""
    transaction.execute(
        "UPDATE outbox SET attempts = attempts + 1, next_us = ?, last_error = ? WHERE id = ? AND state = 'pending'",
        (next_us, error, delivery.id),
    )


def _end(transaction: Transaction, delivery: Delivery, state: str, now_us: int, why: str | None) -> None:
    transaction.execute(
        "UPDATE outbox SET state = ?, ended_us = ?, last_error = coalesce(?, last_error), "
        "attempts = attempts + (? <> 'suppressed') WHERE id = ? AND state = 'pending'",
        (state, now_us, why, state, delivery.id),
    )


def due_now(transaction: Transaction, sink: str, *, now_us: int) -> None:
    """Make all that waits for a sink due, after the wall clock was set back."""
    transaction.execute(
        "UPDATE outbox SET next_us = ? WHERE sink = ? AND state = 'pending' AND next_us > ?", (now_us, sink, now_us)
    )


def last_delivered_us(connection: Transaction, sink: str, key: str) -> tuple[int, int] | None:
    """When the news of this key that the sink got last was written, and when it was delivered; None before any.

    A cooldown begins with delivery, not with an attempt.
    """
    query = (
        "SELECT created_us, ended_us FROM outbox WHERE sink = ? AND key = ? AND state = 'delivered' "
        "ORDER BY ended_us DESC LIMIT 1"
    )
    return next(
        ((int(created_us), int(ended_us)) for created_us, ended_us in rows(connection, query, (sink, key))), None
    )


def earlier(connection: Transaction, delivery: Delivery) -> list[Earlier]:
    """What became of the earlier revisions of its event that were for the same sink, oldest first."""
    query = (
        "SELECT state, coalesce(last_error, '') FROM outbox WHERE sink = ? AND event_id = ? AND revision < ? "
        "AND state <> 'pending' ORDER BY revision"
    )
    found = rows(connection, query, (delivery.sink, delivery.event_id, delivery.revision))
    return [Earlier(state=state, cause="" if state == "delivered" else why) for state, why in found]


def forget(transaction: Transaction, *, before_us: int, sinks: Iterable[str]) -> int:
    """Remove rows that ended before, and older ones of sinks that are none of `sinks` any more; returns how many."""
    known = json.dumps(list(sinks))
    transaction.execute(
        "DELETE FROM outbox WHERE (state <> 'pending' AND ended_us < ?) "
        "OR (state = 'pending' AND created_us < ? AND sink NOT IN (SELECT value FROM json_each(?)))",
        (before_us, before_us, known),
    )
    return transaction.changes()


def backlog(connection: Transaction, sink: str) -> Backlog:
    """What waits for a sink."""
    query = "SELECT count(*), min(created_us) FROM outbox WHERE sink = ? AND state = 'pending'"
    pending, oldest_us = one_row(connection, query, (sink,))
    return Backlog(pending=pending, oldest_us=oldest_us)
