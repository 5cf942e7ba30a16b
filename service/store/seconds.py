"""Why an event is one: what was seen and heard best in each of its seconds, in a few bytes a second."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from ovavel.service.store.database import Transaction, rows

__all__ = ["BEFORE_US", "LONGEST_US", "Named", "Packed", "Why", "keep_seconds", "keep_vocabulary", "read_seconds"]

BEFORE_US = 5_000_000
"""So much of the time before an event is kept with it."""
LONGEST_US = 600_000_000
"""So much of an event, and no more: what is on for hours looks alike."""

_Best = tuple[tuple[int, float], ...]


class Packed(Struct, frozen=True, array_like=True):
    """One second as it is kept: classes by their place in the vocabulary of the run."""

    label: int
    margin: float
    missing: tuple[str, ...]
    seen: _Best
    """The classes that looked most like it, best first."""
    heard: _Best
    fused: _Best
    """The classes that the rule put first."""
    skipped: str = ""
    """Why its picture was not looked at, by choice."""


class Named(Struct, frozen=True, kw_only=True):
    """A class and what speaks for it."""

    label: str
    value: float


class Why(Struct, frozen=True, kw_only=True):
    """One second as people read it."""

    start_us: int
    label: str
    margin: float
    missing: tuple[str, ...]
    skipped: str
    """Why its picture was not looked at, by choice; empty where it was, or there was none."""
    seen: tuple[Named, ...]
    heard: tuple[Named, ...]
    fused: tuple[Named, ...]


def keep_vocabulary(transaction: Transaction, version: str, names: Sequence[str]) -> None:
    """Keep the names of a vocabulary, the background last; the same version twice is kept once."""
    transaction.execute(
        "INSERT INTO vocabulary (version, names) VALUES (?, ?) ON CONFLICT DO NOTHING", (version, json.dumps(names))
    )


def keep_seconds(
    transaction: Transaction, run_id: str, seconds: Sequence[tuple[int, bytes]], *, number: int | None = None
) -> None:
    """Keep seconds (start, `Packed` as msgpack) with the run's open events, or with its event `number` alone.

    What lies more than `BEFORE_US` before an event, or `LONGEST_US` after its start, is not kept with it.
    """
    for start_us, packed in seconds:
        transaction.execute(
            "INSERT INTO second (event_id, start_us, body) SELECT id, ?, ? FROM event WHERE run_id = ? "
            "AND (session_event_id = ? OR (? IS NULL AND state = 'open')) AND ? BETWEEN start_us - ? AND start_us + ? "
            "ON CONFLICT DO NOTHING",
            (start_us, packed, run_id, number, number, start_us, BEFORE_US, LONGEST_US),
        )


def read_seconds(connection: Transaction, event_id: str) -> list[Why]:
    """The seconds that are kept with an event, oldest first."""
    found = rows(
        connection,
        "SELECT names FROM event JOIN run ON run.id = run_id JOIN vocabulary ON version = vocabulary_version "
        "WHERE event.id = ?",
        (event_id,),
    )
    if not found:
        return []
    names: list[str] = json.loads(found[0][0])
    kept = rows(connection, "SELECT start_us, body FROM second WHERE event_id = ? ORDER BY start_us", (event_id,))
    return [_why(names, start_us, msgspec.msgpack.decode(body, type=Packed)) for start_us, body in kept]


def _why(names: Sequence[str], start_us: int, packed: Packed) -> Why:
    def named(best: _Best) -> tuple[Named, ...]:
        return tuple(Named(label=names[index], value=value) for index, value in best)

    return Why(
        start_us=start_us,
        label=names[packed.label],
        margin=packed.margin,
        missing=packed.missing,
        skipped=packed.skipped,
        seen=named(packed.seen),
        heard=named(packed.heard),
        fused=named(packed.fused),
    )
