"""Snoozes: for a while, sinks hear nothing of a camera, or of one of its labels."""

from __future__ import annotations

from ovavel.service.store.database import Transaction, one_row, rows

__all__ = ["end_snooze", "is_snoozed", "snooze", "snoozed"]


def snooze(transaction: Transaction, camera: str, *, until_us: int, now_us: int, label: str | None = None) -> None:
    """Report nothing of a camera, or of one of its labels, until `until_us`. A later one takes its place."""
    end_snooze(transaction, camera, now_us=now_us, label=label)
    transaction.execute(
        "INSERT INTO mute (camera_id, label, since_us, until_us) VALUES (?, ?, ?, ?)",
        (camera, label, now_us, max(now_us, until_us)),
    )


def end_snooze(transaction: Transaction, camera: str, *, now_us: int, label: str | None = None) -> None:
    """End the snooze of a camera, or of one of its labels. What it left out stays left out."""
    transaction.execute(
        "UPDATE mute SET until_us = ? WHERE camera_id = ? AND label IS ? AND until_us > ?",
        (now_us, camera, label, now_us),
    )
    # A day is enough for what waits for a sink that is away; news that is older is not an alarm any more.
    transaction.execute("DELETE FROM mute WHERE camera_id = ? AND until_us < ?", (camera, now_us - 86_400_000_000))


def is_snoozed(connection: Transaction, camera: str, label: str, *, at_us: int) -> bool:
    """Whether news of a label was to be left out at this moment."""
    query = (
        "SELECT count(*) FROM mute WHERE camera_id = ? AND (label IS NULL OR label = ?) "
        "AND since_us <= ? AND until_us > ?"
    )
    (count,) = one_row(connection, query, (camera, label, at_us, at_us))
    return bool(count)


def snoozed(connection: Transaction, *, now_us: int) -> dict[tuple[str, str | None], int]:
    """What is snoozed now: (camera, label, or None for all of it) → until when."""
    query = "SELECT camera_id, label, max(until_us) FROM mute WHERE until_us > ? GROUP BY camera_id, label"
    return {(camera, label): int(until_us) for camera, label, until_us in rows(connection, query, (now_us,))}
