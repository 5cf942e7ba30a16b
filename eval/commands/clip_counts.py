"""The table of clips per split that commands print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["clip_counts"]


def clip_counts(splits: Iterable[str], rows: Iterable[tuple[str, Sequence[int]]], title: str = "clips") -> Table:
    """Return a table with a column for each split and their total; `rows` are names with a count for each split."""
    from rich.table import Table

    table = Table("", *splits, "total", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in rows:
        table.add_row(name, *(f"{count:,}".replace(",", " ") for count in (*counts, sum(counts))))
    return table
