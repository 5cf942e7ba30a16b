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
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 880, 620, 60, 170, 20, 50
_LABEL, _LETTER = 13, 6.2
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
    """Draw points with their names, whiskers of one deviation, the diagonal x = y, and a key of the groups.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("a scatter plot needs a point")
    columns, rows = (
        ticks(min(v - d for v, d in pairs), max(v + d for v, d in pairs))
        for pairs in ([(p.x, p.x_deviation) for p in points], [(p.y, p.y_deviation) for p in points])
    )

    def x(value: float) -> float:
        return round(_LEFT + (value - columns[0]) / (columns[-1] - columns[0]) * (_WIDTH - _LEFT - _RIGHT), 2)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - rows[0]) / (rows[-1] - rows[0]) * (_HEIGHT - _TOP - _BOTTOM), 2)

    groups = list(dict.fromkeys(point.group for point in points))
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
        parts += _marker(point, x, y, colour(groups.index(point.group)))
    places = _places([(x(point.x), y(point.y), len(point.name)) for point in points])
    for point, (left, base) in zip(points, places, strict=True):
        across, down = x(point.x), y(point.y)
        if abs(base - down - 4) > _LABEL:
            parts.append(f'<path class="ov-grid" d="M{across} {down}L{left - 2} {base - 4}"/>')
        parts.append(_text(left, base, point.name, "start"))
    for number, group in enumerate(groups):
        left, base = 20 + number % _KEY_COLUMNS * _KEY_COLUMN, _HEIGHT + 14 + number // _KEY_COLUMNS * _KEY_ROW
        parts.append(f'<circle cx="{left}" cy="{base - 4}" r="5" fill="{colour(number)}"/>')
        parts.append(f'<text class="ov-text" x="{left + 12}" y="{base}">{text(group)}</text>')
    return drawing(_WIDTH, _HEIGHT + 14 + _KEY_ROW * -(-len(groups) // _KEY_COLUMNS), parts)


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


def _places(points: Sequence[tuple[float, float, int]]) -> list[tuple[float, float]]:
    """Return where each name begins, given its point and its letters: beside the point, or lower where another is."""
    taken: list[tuple[float, float, float]] = []
    places = [(0.0, 0.0)] * len(points)
    for index in sorted(range(len(points)), key=lambda i: points[i][1]):
        across, down, letters = points[index]
        left, base, width = across + 9, down + 4, _LETTER * letters
        for other_left, other_base, other_right in sorted(taken, key=lambda each: each[1]):
            if abs(base - other_base) < _LABEL and left < other_right and other_left < left + width:
                base = other_base + _LABEL
        taken.append((left, base, left + width))
        places[index] = (left, round(base, 2))
    return places


def _text(left: float, base: float, words: str, anchor: str) -> str:
    return f'<text class="ov-text ov-dim" x="{left}" y="{base}" text-anchor="{anchor}">{text(words)}</text>'
