"""Shows a table: cells for the terminal, and CSV."""

from __future__ import annotations

from collections.abc import Iterator

from ovavel.eval.accuracy.bootstrap import LEVEL, RESAMPLES, SEED
from ovavel.eval.accuracy.protocols import PUBLISHED
from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.result import RowTable
from ovavel.training.fit.table.results import (
    JOINED,
    JOINED_LAG,
    Intervals,
    Line,
    PartialTable,
    Results,
    Spread,
    published_table,
)
from ovavel.training.fit.table.suites import CONTROLS

__all__ = [
    "COST_HEAD",
    "GAIN_HEAD",
    "MISSING_HEAD",
    "PUBLISHED_ALONE",
    "cells",
    "cost_cells",
    "gain_cells",
    "grouped_cells",
    "missing_cells",
    "notes",
    "to_csv",
]

COST_HEAD = ("method", "drop", "parameters", "training s", "window ms", "× paper")
GAIN_HEAD = ("method", "over", *PARTS, f"joined, lag {JOINED_LAG}")
MISSING_HEAD = ("method", "why it is missing", "what makes it")
PUBLISHED_ALONE = "Published"
"""Group of the published rows that no row of ours corresponds to."""
_UNKNOWN, _NONE = "not measured", "none"


def cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: method and its 12 figures in points; published rows next to ours ("–": unknown).

    A row that is missing has its reason in `missing_cells`.
    """
    for _, row in grouped_cells(results):
        yield row


def grouped_cells(results: Results) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the group and the cells of each row; see `cells`."""
    shown = not results.why_not_published
    if shown:
        ours = {line.published for line in results.lines}
        for name, each in PUBLISHED.items():
            if each.is_system and name not in ours:
                yield PUBLISHED_ALONE, (f"published: {name}", *_points(published_table(name)))
    for line in results.lines:
        if line.mean is not None:
            yield line.group, (_named(line), *_points(line.mean, line.deviation, line.interval))
        else:
            yield line.group, (_named(line), *("missing" for _ in PARTS for _ in MEASURES))
        if line.published and shown:
            yield line.group, (f"  published: {line.published}", *_points(published_table(line.published)))


def cost_cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield method, seen minus unseen Avg. in points, and cost, as in `COST_HEAD`."""
    for line in results.lines:
        if line.mean is None:
            continue
        cost, drop = line.cost, line.drop
        training = _plain(cost.training_s) if cost.training_s else _UNKNOWN if line.seeds else _NONE
        unmeasured = _NONE if line.group == CONTROLS and not line.seeds else _UNKNOWN
        yield (
            _named(line),
            _signed(drop),
            "not known" if cost.parameters is None else f"{cost.parameters:,}".replace(",", " "),
            training,
            unmeasured if cost.window_ms is None else f"{cost.window_ms:.2f}",
            unmeasured if cost.window_ratio is None else f"{cost.window_ratio:.2f}",
        )


def gain_cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield method, the one it is compared with, and the difference of their Avg. in points on each part."""
    for line in results.lines:
        for gain in line.gains:
            yield _named(line), gain.over, *(_signed(gain.parts.get(part)) for part in (*PARTS, JOINED))


def missing_cells(results: Results) -> Iterator[tuple[str, str, str]]:
    """Yield the rows without figures: method, why, and what makes them."""
    for line in results.lines:
        if line.missing:
            yield _named(line), line.missing.reason, line.missing.command


def _named(line: Line) -> str:
    return f"{line.name} ({line.label})" if line.label else line.name


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


def _signed(spread: Spread | None) -> str:
    """Format a difference in points."""
    if spread is None:
        return "–"
    shown = f"{100 * spread.mean:+.1f}"
    return shown if spread.deviation is None else f"{shown} ± {100 * spread.deviation:.1f}"


def _plain(spread: Spread) -> str:
    return f"{spread.mean:.1f}" if spread.deviation is None else f"{spread.mean:.1f} ± {spread.deviation:.1f}"


def notes(results: Results) -> Iterator[str]:
    """Yield the notes needed to read the table."""
    data = results.data
    assert data.test
    yield f"Tested on {data.test.summary}; trained on {data.train.summary}, validated on {data.val.summary}."
    seeds = sorted({seed for line in results.lines for seed in line.seeds})
    if seeds:
        yield f"Seeds: {', '.join(map(str, seeds))}. Epochs are selected on validation unless a recipe says otherwise."
    for name, share in results.ratios.items():
        yield f"{name}: {share}."
    if any(line.interval for line in results.lines):
        yield (
            f"In brackets: {LEVEL:.0%} percentile bootstrap intervals over the test clips ({RESAMPLES} resamples, "
            f"seed {SEED}). They do not include the variation between training seeds."
        )
    yield (
        "Drop: Avg. of seen minus Avg. of unseen clips. Training: steps alone, without validation. Window: from the "
        "embeddings of ten seconds to the decision on the CPU, median, in one run in which the rows took turns."
    )
    yield from results.remarks
    if results.why_not_published:
        yield results.why_not_published
        return
    sources: dict[str, list[str]] = {}
    for name, each in PUBLISHED.items():
        sources.setdefault(each.source, []).append(name)
    for source, names in sources.items():
        yield f"Published, {', '.join(names)}: {source}."


def to_csv(results: Results) -> bytes:
    """Return CSV: a row per method, part of the clips and measure, in [0, 1], with spread and published figure.

    Drop, gains and cost are measures too; a row that is missing has the measure "missing" and its reason as a note.
    """
    head = ("method", "group", "clips", "measure", "value", "deviation", "low", "high", "seeds", "published", "source")
    rows = [(*row, *[""] * (len(head) + 1 - len(row))) for line in results.lines for row in _csv_rows(results, line)]
    return csv_table([(*head, "note"), *rows])


def _csv_rows(results: Results, line: Line) -> Iterator[tuple[object, ...]]:
    known = None if results.why_not_published or not line.published else line.published
    table = published_table(known) if known else {}
    if line.missing:
        note = f"{line.missing.reason}; {line.missing.command}"
        yield line.name, line.group, "", "missing", *[""] * 7, note
    for part in PARTS:
        for measure, value in ((line.mean or {}).get(part) or {}).items():
            low, high = ((line.interval or {}).get(part) or {}).get(measure, (None, None))
            spread = ((line.deviation or {}).get(part) or {}).get(measure)
            yield (
                *(line.name, line.group, part, measure, value, spread, low, high, len(line.seeds)),
                *((table.get(part) or {}).get(measure), PUBLISHED[known].source if known else None),
                line.label,
            )
    seeds = len(line.seeds)
    for measure, each in (("drop", line.drop), ("joined avg", line.joined), ("training_s", line.cost.training_s)):
        if each:
            yield line.name, line.group, "", measure, each.mean, each.deviation, None, None, seeds
    for gain in line.gains:
        for part, own in gain.parts.items():
            if own:
                yield (
                    line.name,
                    line.group,
                    part,
                    f"gain over {gain.over}",
                    own.mean,
                    own.deviation,
                    None,
                    None,
                    seeds,
                )
    for measure in ("parameters", "window_ms", "window_ratio"):
        if (cost := getattr(line.cost, measure)) is not None:
            yield line.name, line.group, "", measure, cost, None, None, None, seeds
