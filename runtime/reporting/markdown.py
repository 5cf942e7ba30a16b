"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

__all__ = ["table_lines"]


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int] = ()) -> Iterator[str]:
    """Yield the lines of a table; the columns with indices in `right` are right-aligned."""
    yield _line(head)
    yield _line(["---:" if number in right else "---" for number in range(len(head))])
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
