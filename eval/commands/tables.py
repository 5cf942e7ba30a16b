"""Results in the terminal, as some commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ovavel.runtime.reporting.text import one_line

__all__ = ["figures_table"]


def figures_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first two columns name what the numbers in the others are of."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name.replace(" ", "\n"), justify="left" if number < 2 else "right", no_wrap=number > 0)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table
