"""Events that go with all that is known of them: rows first, then files.

A crash in between leaves files without a row, which the next start removes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovavel.service.evidence import files
from ovavel.service.failpoints import reach
from ovavel.service.store.database import Database, Transaction, rows

__all__ = ["delete_events", "remove_files"]


def delete_events(transaction: Transaction, events: Sequence[str]) -> list[str]:
    """Delete events with all that is known of them; returns the paths of their files, to be removed afterwards.

    The account of their seconds stays. So does what a sink still waits for, with what it got of the same event before:
    whoever heard of a start hears of the end.
    """
    paths: list[str] = []
    for event in events:
        paths += [
            path
            for (path,) in rows(transaction, "SELECT path FROM asset WHERE event_id = ? AND path IS NOT NULL", (event,))
        ]
        transaction.execute("DELETE FROM event_log WHERE event_id = ?", (event,))
        transaction.execute("UPDATE event_log_trimmed SET entries = entries + ?", (transaction.changes(),))
        transaction.execute(
            "DELETE FROM outbox WHERE event_id = ? AND sink NOT IN "
            "(SELECT sink FROM outbox WHERE event_id = ? AND state = 'pending')",
            (event, event),
        )
        transaction.execute("DELETE FROM event WHERE id = ?", (event,))
    return paths


def remove_files(store: Database, paths: Sequence[str]) -> None:
    """Remove the files of events or assets whose rows are gone, or say so."""
    reach("asset.rows-removed")
    for path in paths:
        files.remove(store.folder / path)
