"""SVG charts, standalone or inside a page, light and dark: curves, bars, histograms, reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ovavel.runtime.reporting.drawing import drawing
from ovavel.runtime.reporting.page import text
from ovavel.runtime.reporting.palette import colour

__all__ = ["Bar", "Histogram", "Series", "bar_charts", "histograms", "line_charts", "row_charts", "ticks"]

# All in SVG units
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 300, 52, 14, 40, 46
_KEY_ROW = 20
_BINS = 29


class Series(NamedTuple):
    """One curve."""

    name: str
    values: Sequence[float]
    """One for each x."""
    dashed: bool = False


class Bar(NamedTuple):
    """One bar of a chart over [0, 1] × [0, 1]."""

    left: float
    right: float
    height: float
    weight: float
    """Opacity in [0, 1]: the share of the data that the bar represents."""
    tooltip: str
    """Shown when the pointer rests on it."""


class Histogram(NamedTuple):
    """Distribution of values between two ends."""

    title: str
    values: Iterable[float]
    """Values beyond an end are counted at that end."""
    low: float
    high: float


def line_charts(
    panels: Sequence[tuple[str, Sequence[Series]]], x: Sequence[float], *, x_label: str, marked: float | None = None
) -> str:
    """Draw panels side by side, two per row, with a shared legend; `marked` is an x value with a vertical line.

    All panels have series of the same names, with a value for each x.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // 2)
    names = panels[0][1]
    height = rows * _HEIGHT + _KEY_ROW * -(-len(names) // columns) + 10
    parts = []
    for number, (title, series) in enumerate(panels):
        inside = "".join(_lines(title, series, x, x_label, marked))
        parts.append(f'<g transform="translate({number % 2 * _WIDTH} {number // 2 * _HEIGHT})">{inside}</g>')
    for number, each in enumerate(names):
        left, top = 20 + number % columns * _WIDTH, rows * _HEIGHT + 14 + number // columns * _KEY_ROW
        parts.append(f'<path d="M{left} {top - 4}h26" {_stroke(number, dashed=each.dashed)}/>')
        parts.append(f'<text class="ov-text" x="{left + 34}" y="{top}">{text(each.name)}</text>')
    return drawing(columns * _WIDTH, height, parts)


def bar_charts(panels: Sequence[tuple[str, Sequence[Bar]]], *, x_label: str, y_label: str) -> str:
    """Draw panels side by side, each with bars and the ideal diagonal."""
    parts = []
    for number, (title, bars) in enumerate(panels):
        inside = "".join(_bars(title, bars, x_label, y_label))
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">{inside}</g>')
    return drawing(len(panels) * _WIDTH, _HEIGHT, parts)


def row_charts(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, unit: str) -> str:
    """Draw a stacked bar for each row; all rows have the same named parts."""
    width, left, step = 2 * _WIDTH, 250, 26
    most = max(sum(value for _, value in parts) for _, parts in rows)
    scale = (width - left - 90) / max(most, 1e-9)
    drawn = []
    for number, (name, parts) in enumerate(rows):
        top, start = 12 + number * step, float(left)
        drawn.append(f'<text class="ov-text" x="{left - 8}" y="{top + 14}" text-anchor="end">{text(name)}</text>')
        for part, (title, value) in enumerate(parts):
            tooltip = f"<title>{text(name)}: {text(title)} {value:.2f} {text(unit)}</title>"
            drawn.append(
                f'<rect x="{start:.2f}" y="{top}" width="{max(0.0, value * scale):.2f}" height="18" '
                f'fill="{colour(part)}">{tooltip}</rect>'
            )
            start += max(0.0, value * scale)
        whole = sum(value for _, value in parts)
        drawn.append(f'<text class="ov-text ov-dim" x="{start + 6:.2f}" y="{top + 14}">{whole:.1f}</text>')
    below = 12 + len(rows) * step + 16
    for part, (title, _) in enumerate(rows[0][1]):
        across = left + part * 130
        drawn.append(f'<rect x="{across}" y="{below - 11}" width="12" height="12" fill="{colour(part)}"/>')
        drawn.append(f'<text class="ov-text" x="{across + 18}" y="{below}">{text(title)}</text>')
    drawn.append(f'<text class="ov-text ov-dim" x="{left - 8}" y="{below}" text-anchor="end">{text(unit)}</text>')
    return drawing(width, below + 14, drawn)


def histograms(panels: Sequence[Histogram], *, x_label: str) -> str:
    """Draw histograms side by side, two per row."""
    rows = -(-len(panels) // 2)
    parts = []
    for number, panel in enumerate(panels):
        inside = "".join(_histogram(panel, x_label))
        parts.append(f'<g transform="translate({number % 2 * _WIDTH} {number // 2 * _HEIGHT})">{inside}</g>')
    return drawing(min(2, len(panels)) * _WIDTH, rows * _HEIGHT, parts)


def _histogram(panel: Histogram, x_label: str) -> Iterator[str]:
    counts = [0] * _BINS
    for value in panel.values:
        share = (value - panel.low) / (panel.high - panel.low)
        counts[min(_BINS - 1, max(0, int(share * _BINS)))] += 1
    ends = (panel.low, panel.high)
    marks = ticks(0, max(counts))
    yield from _frame(panel.title, x_label)
    for tick in marks:
        top = _y(tick, marks)
        yield f'<path class="ov-grid" d="M{_LEFT} {top}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="ov-text ov-dim" x="{_LEFT - 6}" y="{top + 4}" text-anchor="end">{tick:g}</text>'
    for mark in ticks(*ends):
        if panel.low <= mark <= panel.high:
            yield _x_name(mark, _x(mark, ends))
    for number, count in enumerate(counts):
        if count:
            span = [panel.low + (panel.high - panel.low) * edge / _BINS for edge in (number, number + 1)]
            left, right = (_x(edge, ends) for edge in span)
            top, base = _y(count, marks), _y(0, marks)
            yield (
                f'<rect x="{left + 0.5:.2f}" y="{top}" width="{right - left - 1:.2f}" height="{base - top:.2f}" '
                f'fill="{colour(0)}"><title>{count} from {span[0]:.3g} to {span[1]:.3g}</title></rect>'
            )


def _lines(
    title: str, series: Sequence[Series], x: Sequence[float], x_label: str, marked: float | None
) -> Iterator[str]:
    values = [value for each in series for value in each.values]
    marks = ticks(min(values), max(values))
    yield from _frame(title, x_label)
    for tick in marks:
        top = _y(tick, marks)
        yield f'<path class="ov-grid" d="M{_LEFT} {top}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="ov-text ov-dim" x="{_LEFT - 6}" y="{top + 4}" text-anchor="end">{tick:g}</text>'
    for value in x:
        left = _x(value, x)
        yield _x_name(value, left)
    if marked is not None:
        yield f'<path class="ov-mark" d="M{_x(marked, x)} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
    for number, each in enumerate(series):
        points = [(_x(a, x), _y(b, marks)) for a, b in zip(x, each.values, strict=True)]
        path = "L".join(f"{left} {top}" for left, top in points)
        yield f'<path d="M{path}" {_stroke(number, dashed=each.dashed)}/>'
        for (left, top), a, b in zip(points, x, each.values, strict=True):
            tooltip = f"<title>{text(each.name)}: {a:g} → {b:.2f}</title>"
            yield f'<circle cx="{left}" cy="{top}" r="3" fill="{colour(number)}">{tooltip}</circle>'


def _bars(title: str, bars: Sequence[Bar], x_label: str, y_label: str) -> Iterator[str]:
    unit = (0.0, 1.0)
    yield from _frame(title, x_label, y_label)
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        left, top = _x(tick, unit), _y(tick, unit)
        yield f'<path class="ov-grid" d="M{_LEFT} {top}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="ov-text ov-dim" x="{_LEFT - 6}" y="{top + 4}" text-anchor="end">{tick:g}</text>'
        yield _x_name(tick, left)
    for bar in bars:
        left, right, top, base = _x(bar.left, unit), _x(bar.right, unit), _y(bar.height, unit), _y(0, unit)
        yield (
            f'<rect x="{left + 0.5:.2f}" y="{top}" width="{right - left - 1:.2f}" height="{base - top:.2f}" '
            f'fill="{colour(0)}" opacity="{0.25 + 0.75 * bar.weight:.2f}"><title>{text(bar.tooltip)}</title></rect>'
        )
    yield f'<path class="ov-mark" d="M{_x(0, unit)} {_y(0, unit)}L{_x(1, unit)} {_y(1, unit)}"/>'


def _frame(title: str, x_label: str, y_label: str = "") -> Iterator[str]:
    yield f'<text class="ov-text ov-title" x="{_LEFT - 32}" y="22">{text(title)}</text>'
    yield (
        f'<text class="ov-text ov-dim" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 12}" '
        f'text-anchor="middle">{text(x_label)}</text>'
    )
    if y_label:
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        yield (
            f'<text class="ov-text ov-dim" x="14" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle})">{text(y_label)}</text>'
        )


def _x_name(value: float, left: float) -> str:
    return f'<text class="ov-text ov-dim" x="{left}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Return four to eight round values from below `low` to above `high`."""
    span = max(high - low, 1e-3)
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * number, 9) for number in range(first, max(last, first + 1) + 1)]


def _x(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    return round(_LEFT + 8 + (value - low) / max(high - low, 1e-9) * (_WIDTH - _LEFT - _RIGHT - 16), 2)


def _y(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP), 2)


def _stroke(number: int, *, dashed: bool) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'fill="none" stroke="{colour(number)}" stroke-width="2"{dashes}'
