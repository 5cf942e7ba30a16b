"""CSV that a spreadsheet takes for text."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.reporting.csv_table import csv_table


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_no_cell_is_a_formula_or_a_second_line(rows: list[list[str]]) -> None:
    text = csv_table([("a", "b"), *rows]).decode()
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert len(found) == len(text.splitlines()) == len(rows) + 1
    for cell in (cell for row in found for cell in row):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_stay_numbers() -> None:
    assert csv_table([("x", -0.5, None), ("-x", "@y", "z")]) == b"x,-0.5,\n'-x,'@y,z\n"
