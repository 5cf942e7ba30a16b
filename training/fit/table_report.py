"""Shows the table of recipes: cells for the terminal, CSV and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from ovavel.eval.accuracy.bootstrap import LEVEL, RESAMPLES, SEED
from ovavel.eval.accuracy.protocols import PUBLISHED
from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.palette import SERIES
from ovavel.runtime.reporting.text import names_text
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.result import RowTable
from ovavel.training.fit.table import Intervals, Line, PartialTable, Results, published_table

__all__ = ["cells", "notes", "to_csv", "to_html"]


def cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: method and its 12 figures in points; published rows next to ours ("–": unknown)."""
    if not results.why_not_published:
        ours = {line.published for line in results.lines}
        for name, each in PUBLISHED.items():
            if each.rows and name not in ours:
                yield f"published: {name}", *_points(published_table(name))
    for line in results.lines:
        yield line.name, *_points(line.mean, line.deviation, line.interval)
        if line.published and not results.why_not_published:
            yield f"  published: {line.published}", *_points(published_table(line.published))


def _points(mean: PartialTable, deviation: RowTable | None = None, interval: Intervals | None = None) -> Iterator[str]:
    for part in PARTS:
        scores = mean[part]
        spread, ends = deviation[part] if deviation else None, interval[part] if interval else None
        for measure in map(str.lower, MEASURES):
            value = None if scores is None else scores[measure]
            shown = "–" if value is None else f"{100 * value:.1f}"
            if spread:
                shown += f" ± {100 * spread[measure]:.1f}"
            elif ends:
                shown += " ({:.1f}–{:.1f})".format(*(100 * end for end in ends[measure]))
            yield shown


def notes(results: Results) -> Iterator[str]:
    """Yield the notes needed to read the table."""
    data = results.data
    assert data.test
    yield f"Tested on {data.test.summary}; trained on {data.train.summary}, validated on {data.val.summary}."
    seeds = sorted({seed for line in results.lines for seed in line.seeds})
    yield f"Seeds: {', '.join(map(str, seeds))}. Epochs are selected on validation unless a recipe says otherwise."
    for name, share in results.ratios.items():
        yield f"{name}: {share}."
    if any(line.interval for line in results.lines):
        yield (
            f"In brackets: {LEVEL:.0%} percentile bootstrap intervals over the test clips ({RESAMPLES} resamples, "
            f"seed {SEED}). They do not include the variation between training seeds."
        )
    if results.why_not_published:
        yield results.why_not_published
        return
    sources: dict[str, list[str]] = {}
    for name, each in PUBLISHED.items():
        sources.setdefault(each.source, []).append(name)
    for source, names in sources.items():
        yield f"Published, {', '.join(names)}: {source}."


def to_csv(results: Results) -> bytes:
    """Return CSV: a row per method, part of the clips and measure, in [0, 1], with spread and published figure."""
    head = ("method", "clips", "measure", "value", "deviation", "low", "high", "seeds", "published", "source")
    return csv_table([head, *(row for line in results.lines for row in _csv_rows(results, line))])


def _csv_rows(results: Results, line: Line) -> Iterator[tuple[object, ...]]:
    known = None if results.why_not_published or not line.published else line.published
    table = published_table(known) if known else {}
    for part in PARTS:
        for measure, value in (line.mean[part] or {}).items():
            low, high = ((line.interval or {}).get(part) or {}).get(measure, (None, None))
            spread = ((line.deviation or {}).get(part) or {}).get(measure)
            yield (
                *(line.name, part, measure, value, spread, low, high),
                *(len(line.seeds), (table.get(part) or {}).get(measure), PUBLISHED[known].source if known else None),
            )


def to_html(results: Results) -> bytes:
    """Return the table and a chart of it as one self-contained page."""
    head = ("method", *(f"{part} {measure}" for part in PARTS for measure in MEASURES))
    rows = list(cells(results))
    trained = [
        number for number, row in enumerate(rows) if row[0] in {line.name for line in results.lines if line.seeds}
    ]
    return page(
        "Heads on the test split",
        facts(
            [
                ("vocabulary", names_text(results.data.classes)),
                ("trained on", names_text(results.data.train_classes)),
                ("ovavel", version("ovavel")),
            ]
        ),
        section("Avg, %", _bars(results.lines)),
        section(
            "Every measure, %",
            table(head, rows, bold=trained),
            *(f'<p class="{"warning" if n.startswith("WARNING") else "dim"}">{text(n)}</p>' for n in notes(results)),
        ),
    )


def _bars(lines: Sequence[Line]) -> str:
    """Draw Avg of seen, unseen and all clips as bars, with the deviation over seeds."""
    left, width, step = 290, 480, 44
    parts = []
    for number, line in enumerate(lines):
        top = 24 + number * step
        parts.append(f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{text(line.name)}</text>')
        for row, (part, colour) in enumerate(zip(PARTS, SERIES, strict=False)):
            scores, spread = line.mean[part], (line.deviation or {}).get(part)
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
