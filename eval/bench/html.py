"""Benchmark report as an HTML page with tables and two charts."""

from __future__ import annotations

from ovavel.eval.bench.report import BenchReport
from ovavel.eval.bench.tables import device_lines, grids
from ovavel.runtime.reporting.charts import Series, line_charts, row_charts
from ovavel.runtime.reporting.page import page, section, table, text

__all__ = ["report_page"]

_PERCENTS = (50, 90, 95, 99)
_PARTS = ("preprocess", "encoders", "head", "decide")


def report_page(report: BenchReport) -> bytes:
    """Return the self-contained HTML page."""
    lines = "".join(f"<p>{text(line)}</p>" for line in device_lines(report))
    parts = [section("Measured on", lines), *_pictures(report)]
    for grid in grids(report):
        notes = "".join(f"<p>{text(note)}</p>" for note in grid.notes)
        parts.append(section(grid.title, table(grid.head, grid.rows), notes))
    rules = "".join(f"<p><b>{text(name)}</b>: {text(rule)}.</p>" for name, rule in report.rules.items())
    title = f"Benchmark of {report.model}" + (" (partial)" if report.partial else "")
    return page(title, *parts, section("Rules", rules))


def _pictures(report: BenchReport) -> list[str]:
    rows = [(row, row.single) for row in report.rows if row.single]
    if not rows:
        return []
    bars = [(row.name, [(part, single.stages[part].p50) for part in _PARTS]) for row, single in rows]
    pictures = [section("Where the time of a window goes", row_charts(bars, unit="ms, median"))]
    series = [Series(row.name, [getattr(single.stages["window"], f"p{p}") for p in _PERCENTS]) for row, single in rows]
    picture = line_charts([("Milliseconds a window", series)], _PERCENTS, x_label="percentile")
    return [*pictures, section("Slow windows relative to the median", picture)]
