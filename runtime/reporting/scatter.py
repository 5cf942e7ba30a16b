"""A scatter plot as SVG, standalone or inside a page, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ovavel.runtime.reporting.charts import ticks
from ovavel.runtime.reporting.drawing import drawing
from ovavel.runtime.reporting.page import text
from ovavel.runtime.reporting.palette import colour

__all__ = ["Point", "scatter_chart"]

# All in SVG units
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 560, 60, 290, 20, 50
_ROW, _NUMBER_HIGH, _NUMBER_WIDE = 15, 11, 7
_KEY_ROW, _KEY_COLUMN, _KEY_COLUMNS = 20, 290, 3


class Point(NamedTuple):
    """One point, with how far its coordinates spread."""

    name: str
    x: float
    y: float
    group: str
    """Points of a group share a colour, and the key names it."""
    x_deviation: float = 0.0
    y_deviation: float = 0.0
    hollow: bool = False


def scatter_chart(points: Sequence[Point], *, x_label: str, y_label: str) -> str:
    """Draw numbered points, whiskers of one deviation, the diagonal x = y, the names, and a key of the groups.

    Axes span the points; a whisker that is longer ends at the edge.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("a scatter plot needs a point")
    columns, rows = (ticks(min(v), max(v)) for v in ([p.x for p in points], [p.y for p in points]))
    bottom = max(_HEIGHT, _TOP + _ROW * len(points) + 10)

    def x(value: float) -> float:
        inside = min(max(value, columns[0]), columns[-1])
        return round(_LEFT + (inside - columns[0]) / (columns[-1] - columns[0]) * (_WIDTH - _LEFT - _RIGHT), 2)

    def y(value: float) -> float:
        inside = min(max(value, rows[0]), rows[-1])
        return round(_HEIGHT - _BOTTOM - (inside - rows[0]) / (rows[-1] - rows[0]) * (_HEIGHT - _TOP - _BOTTOM), 2)

    groups = list(dict.fromkeys(point.group for point in points))

    def ink(point: Point) -> str:
        return colour(groups.index(point.group))

    parts = [f'<path class="ov-grid" d="M{x(each)} {_TOP}V{_HEIGHT - _BOTTOM}"/>' for each in columns]
    parts += [f'<path class="ov-grid" d="M{_LEFT} {y(each)}H{_WIDTH - _RIGHT}"/>' for each in rows]
    middle, centre = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts += [_text(x(each), _HEIGHT - _BOTTOM + 16, f"{each:g}", "middle") for each in columns]
    parts += [_text(_LEFT - 6, y(each) + 4, f"{each:g}", "end") for each in rows]
    parts.append(_text(middle, _HEIGHT - 12, x_label, "middle"))
    parts.append(
        f'<text class="ov-text ov-dim" x="16" y="{centre}" text-anchor="middle" '
        f'transform="rotate(-90 16 {centre})">{text(y_label)}</text>'
    )
    low, high = max(columns[0], rows[0]), min(columns[-1], rows[-1])
    if low < high:
        title = f"<title>{text(x_label)} = {text(y_label)}</title>"
        parts.append(f'<path class="ov-mark" d="M{x(low)} {y(low)}L{x(high)} {y(high)}">{title}</path>')
    for point in points:
        parts += _marker(point, x, y, ink(point))
    places = _places([(x(point.x), y(point.y)) for point in points])
    for number, (point, (left, base)) in enumerate(zip(points, places, strict=True), 1):
        parts.append(_text(left, base, str(number), "start"))
        top = _TOP + _ROW * number
        parts.append(f'<circle cx="{_WIDTH - _RIGHT + 48}" cy="{top - 4}" r="4" fill="{ink(point)}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 38, top, str(number), "end"))
        parts.append(_text(_WIDTH - _RIGHT + 58, top, point.name, "start"))
    for number, group in enumerate(groups):
        left, base = 20 + number % _KEY_COLUMNS * _KEY_COLUMN, bottom + 14 + number // _KEY_COLUMNS * _KEY_ROW
        parts.append(f'<circle cx="{left}" cy="{base - 4}" r="5" fill="{colour(number)}"/>')
        parts.append(f'<text class="ov-text" x="{left + 12}" y="{base}">{text(group)}</text>')
    return drawing(_WIDTH, bottom + 14 + _KEY_ROW * -(-len(groups) // _KEY_COLUMNS), parts)


def _marker(point: Point, x: Callable[[float], float], y: Callable[[float], float], ink: str) -> Iterator[str]:
    across, down = x(point.x), y(point.y)
    if point.x_deviation:
        ends = x(point.x - point.x_deviation), x(point.x + point.x_deviation)
        yield f'<path d="M{ends[0]} {down}H{ends[1]}" stroke="{ink}" opacity=".5"/>'
    if point.y_deviation:
        ends = y(point.y - point.y_deviation), y(point.y + point.y_deviation)
        yield f'<path d="M{across} {ends[0]}V{ends[1]}" stroke="{ink}" opacity=".5"/>'
    spread = f" ± {point.x_deviation:.1f}", f" ± {point.y_deviation:.1f}"
    shown = f"{point.name}: {point.x:.1f}{spread[0] * bool(point.x_deviation)}"
    shown += f", {point.y:.1f}{spread[1] * bool(point.y_deviation)}"
    look = f'fill="none" stroke="{ink}" stroke-width="2"' if point.hollow else f'fill="{ink}"'
    yield f'<circle cx="{across}" cy="{down}" r="5" {look}><title>{text(shown)}</title></circle>'


def _places(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return where each number begins: beside its point, or lower where another number is."""
    taken: list[tuple[float, float]] = []
    places = [(0.0, 0.0)] * len(points)
    for index in sorted(range(len(points)), key=lambda i: points[i][1]):
        across, down = points[index]
        left, base = across + 7, down + 4
        for other_left, other_base in sorted(taken, key=lambda each: each[1]):
            if abs(base - other_base) < _NUMBER_HIGH and abs(left - other_left) < 2 * _NUMBER_WIDE:
                base = other_base + _NUMBER_HIGH
        taken.append((left, base))
        places[index] = (left, round(base, 2))
    return places


def _text(left: float, base: float, words: str, anchor: str) -> str:
    return f'<text class="ov-text ov-dim" x="{left}" y="{base}" text-anchor="{anchor}">{text(words)}</text>'
