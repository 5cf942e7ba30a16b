"""Truth and prediction side by side in a terminal."""

from __future__ import annotations

import string
from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ovavel.eval.demo.comparison import Comparison
from ovavel.runtime.reporting.palette import colour
from ovavel.runtime.reporting.text import clock, one_line

__all__ = ["percent", "side_by_side", "verdict"]

_NAMES = string.ascii_uppercase + string.ascii_lowercase
_INDENT = 10
_MARK_EVERY_S = 10
_NARROWEST = 8
_GOOD, _BAD, _QUIET = "green", "bold red", "bright_black"


def side_by_side(comparison: Comparison, console: Console) -> RenderableType:
    """Draw one letter per second, fitted to the width of `console`, and a table of changes."""
    key = {label: _NAMES[number % len(_NAMES)] for number, label in enumerate(comparison.labels)}
    colours = {label: colour(number) for number, label in enumerate(comparison.labels)}
    ascii_only = console.options.ascii_only
    quiet, right, wrong, to = ("-", "+", "x", "-") if ascii_only else ("·", "✓", "✗", "–")

    def name(label: str) -> Text:
        if not label:
            return Text("nothing", _QUIET)
        return Text.assemble((key[label], f"bold {colours[label]}"), f" {one_line(label)}")

    table = Table(box=box.ASCII if ascii_only else box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("when", no_wrap=True)
    table.add_column("truth", overflow="fold", min_width=_NARROWEST)
    table.add_column("ovavel", overflow="fold", min_width=_NARROWEST)
    if comparison.notes:
        table.add_column("", style=_QUIET)
    for stretch in comparison.stretches:
        mark = Text(right, _GOOD) if stretch.right else Text(wrong, _BAD)
        when = f"{clock(stretch.start_s, 0)}{to}{clock(stretch.end_s, 0)}"
        note = [one_line(stretch.note)] if comparison.notes else []
        table.add_row(mark, when, name(stretch.truth), name(stretch.reported), *note)
    strip = _Strip(comparison, key, colours, (quiet, right, wrong))
    return Group(*strip.lines(max(_MARK_EVERY_S, console.width - _INDENT)), table)


class _Strip:
    """The seconds as letters: rows for truth, prediction, and ticks and crosses."""

    def __init__(
        self, comparison: Comparison, key: dict[str, str], colours: dict[str, str], signs: tuple[str, str, str]
    ) -> None:
        self._comparison, self._key, self._colours = comparison, key, colours
        self._quiet, self._right, self._wrong = signs

    def lines(self, width: int) -> Iterator[Text]:
        width -= width % _MARK_EVERY_S
        for start in range(0, len(self._comparison.truth), width):
            yield from self._block(start, min(start + width, len(self._comparison.truth)))

    def _block(self, start: int, end: int) -> Iterator[Text]:
        truth, reported = self._comparison.truth[start:end], self._comparison.reported[start:end]
        marks = range(start, end, _MARK_EVERY_S)
        yield Text(" " * _INDENT + "".join(clock(mark, 0).ljust(_MARK_EVERY_S) for mark in marks).rstrip(), _QUIET)
        for title, labels in (("truth", truth), ("ovavel", reported)):
            yield Text.assemble(f"  {title:<{_INDENT - 2}}", *map(self._letter, labels))
        right = (one == other for one, other in zip(truth, reported, strict=True))
        signs = ((self._right, _GOOD) if good else (self._wrong, _BAD) for good in right)
        yield Text.assemble(" " * _INDENT, *signs)

    def _letter(self, label: str) -> tuple[str, str]:
        return (self._key[label], f"bold {self._colours[label]} reverse") if label else (self._quiet, _QUIET)


def percent(share: float) -> str:
    """Format like the published tables: in percent, one decimal."""
    return f"{100 * share:.1f}"


def verdict(comparison: Comparison) -> str:
    """Summarize the result in one line."""
    scores = comparison.scores
    figures = "   ".join(
        f"{name} {percent(value)}"
        for name, value in (("Acc.", scores.acc), ("Seg.", scores.seg), ("Eve.", scores.eve), ("Avg.", scores.avg))
    )
    return f"{comparison.right_s} of {len(comparison.truth)} seconds right   {figures}"
