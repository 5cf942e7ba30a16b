"""Rows that nobody asks for any more, and that would grow for ever: each reconnection of a camera is a run."""

from __future__ import annotations

from ovavel.service.store.database import Transaction, rows

__all__ = ["AUDIT_KEPT", "forget"]

AUDIT_KEPT = 100_000
"""Newest entries of the record of changes that stay."""
_AT_ONCE = 1000


def forget(transaction: Transaction, *, before_us: int) -> int:
    """Remove what ended before: runs without events, with their anchors, and incidents; returns how many rows.

    Of the record of changes the newest stay, however old. It takes a part at a time: the others wait for the next call.
    """
    before = transaction.total_changes()
    for (run,) in rows(
        transaction,
        "SELECT run.id FROM camera JOIN run ON camera_id = camera.id WHERE started_us < ? AND ended_us < ? "
        "AND NOT EXISTS (SELECT 1 FROM event WHERE run_id = run.id) LIMIT ?",
        (before_us, before_us, _AT_ONCE),
    ):
        transaction.execute("DELETE FROM anchor WHERE run_id = ?", (run,))
        transaction.execute("DELETE FROM run WHERE id = ?", (run,))
    transaction.execute(
        "DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE start_us < ? AND end_us < ? LIMIT ?)",
        (before_us, before_us, _AT_ONCE),
    )
    transaction.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (AUDIT_KEPT,))
    return transaction.total_changes() - before
