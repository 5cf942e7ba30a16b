"""Tables as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ovavel.runtime.reporting.text import one_line

__all__ = ["csv_table"]


def csv_table(rows: Iterable[Sequence[object]]) -> bytes:
    """Format `rows` as UTF-8 CSV; text is put on one line, and formulas are disarmed with a leading "'"."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
