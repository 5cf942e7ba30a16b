"""Accuracy tables as they stand in a result, back to what `evaluate` returns."""

from __future__ import annotations

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.accuracy.protocols import Rows
from ovavel.training.fit.result import RowTable


def rows_of(table: RowTable) -> Rows:
    """Convert back what `row_table` returns."""
    return Rows(**{part: Scores(**scores) if scores else None for part, scores in table.items()})  # type: ignore[arg-type]
