"""The table as a page of HTML: a plot of seen against unseen, bars, every measure, cost, gains, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from ovavel.eval.accuracy.protocols import PUBLISHED
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.palette import SERIES
from ovavel.runtime.reporting.scatter import Point, scatter_chart
from ovavel.runtime.reporting.text import names_text
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.table.report import (
    COST_HEAD,
    GAIN_HEAD,
    MISSING_HEAD,
    PUBLISHED_ALONE,
    cost_cells,
    gain_cells,
    grouped_cells,
    missing_cells,
    notes,
)
from ovavel.training.fit.table.results import Line, Results, published_table
from ovavel.training.fit.table.suites import CONTROLS

__all__ = ["to_html"]


def to_html(results: Results) -> bytes:
    """Return the table and charts of it as one self-contained page."""
    head = ("method", "group", *(f"{part} {measure}" for part in PARTS for measure in MEASURES))
    rows = [(name, group, *figures) for group, (name, *figures) in grouped_cells(results)]
    gains, missing = list(gain_cells(results)), list(missing_cells(results))
    names = {line.name for line in results.lines if line.seeds}
    trained = [number for number, row in enumerate(rows) if row[0] in names]
    points = list(_points(results))
    return page(
        f"Every system on the test split{f', suite {results.suite}' if results.suite else ''}",
        facts(
            [
                ("vocabulary", names_text(results.data.classes)),
                ("trained on", names_text(results.data.train_classes)),
                ("ovavel", version("ovavel")),
            ]
        ),
        section("Avg of seen against unseen classes, %", _scatter(points)) if points else "",
        section("Avg, %", _bars([line for line in results.lines if line.mean])),
        section(
            "Every measure, %",
            table(head, rows, bold=trained),
            *(f'<p class="{"warning" if n.startswith("WARNING") else "dim"}">{text(n)}</p>' for n in notes(results)),
        ),
        section("Drop from seen to unseen classes, and cost", table(COST_HEAD, list(cost_cells(results)))),
        section("Differences of Avg, points", table(GAIN_HEAD, gains)) if gains else "",
        section("Missing rows", table(MISSING_HEAD, missing)) if missing else "",
    )


def _points(results: Results) -> Iterator[Point]:
    """Yield a point for each row with seen and unseen clips, but the controls; hollow ones are published."""
    for line in results.lines:
        seen, unseen = ((line.mean or {}).get(part) for part in ("seen", "unseen"))
        if seen and unseen and line.group != CONTROLS:
            spread = [((line.deviation or {}).get(part) or {}).get("avg", 0.0) for part in ("seen", "unseen")]
            yield Point(
                name=line.name,
                x=100 * seen["avg"],
                y=100 * unseen["avg"],
                group=line.group,
                x_deviation=100 * spread[0],
                y_deviation=100 * spread[1],
            )
    for name in () if results.why_not_published else PUBLISHED:
        figures = published_table(name)
        seen_avg, unseen_avg = ((figures[part] or {}).get("avg") for part in ("seen", "unseen"))
        if seen_avg is not None and unseen_avg is not None:
            yield Point(name=name, x=100 * seen_avg, y=100 * unseen_avg, group=PUBLISHED_ALONE, hollow=True)


def _scatter(points: Sequence[Point]) -> str:
    hollow = " Hollow: published." if any(point.hollow for point in points) else ""
    return (
        scatter_chart(points, x_label="seen Avg, %", y_label="unseen Avg, %")
        + '<p class="dim">Below the dashed line, a row is worse on classes that were not trained on. Whiskers: one '
        f"deviation over the seeds.{hollow} Controls are left out.</p>"
    )


def _bars(lines: Sequence[Line]) -> str:
    """Draw Avg of seen, unseen and all clips as bars, with the deviation over seeds."""
    # As wide as the longest name needs at 13 px, about 6.5 px a letter.
    left, width, step = max(290, 7 * max((len(line.name) for line in lines), default=0)), 480, 44
    parts = []
    for number, line in enumerate(lines):
        top = 24 + number * step
        parts.append(f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{text(line.name)}</text>')
        for row, (part, colour) in enumerate(zip(PARTS, SERIES, strict=False)):
            scores, spread = (line.mean or {}).get(part), (line.deviation or {}).get(part)
            if scores is None:
                continue
            long, y = scores["avg"] * width, top + row * 11
            parts.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="10" fill="{colour}"/>')
            label, reach = f"{100 * scores['avg']:.1f}", 0.0
            if spread:
                reach = spread["avg"] * width
                whisker = f"M{left + long - reach:.1f} {y + 5}h{2 * reach:.1f}"
                parts.append(f'<path d="{whisker}" stroke="currentColor" stroke-width="2"/>')
                label += f" ± {100 * spread['avg']:.1f}"
            parts.append(f'<text x="{left + long + reach + 5:.1f}" y="{y + 9}" font-size="10">{part} {label}</text>')
    height = 24 + len(lines) * step
    return (
        f'<svg class="heat" viewBox="0 0 {left + width + 110} {height}" width="{left + width + 110}" role="img" '
        'font-size="12" font-family="system-ui,sans-serif" fill="currentColor"><title>Avg by method</title>'
        f"{''.join(parts)}</svg>"
    )
