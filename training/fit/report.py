"""HTML report of a training run: the loss, the scores of each epoch, and the epoch that was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.palette import SERIES
from ovavel.runtime.reporting.text import names_text
from ovavel.training.fit.result import FitResult, RowTable

__all__ = ["MEASURES", "PARTS", "score_cells", "selection", "to_csv", "to_html"]

MEASURES = ("Acc", "Seg", "Eve", "Avg")
PARTS = ("seen", "unseen", "total")


def to_csv(result: FitResult) -> bytes:
    """Return a CSV file: one row for each score, in [0, 1], loss and learning rate of each epoch."""
    rows: list[tuple[object, ...]] = [("epoch", "kept", "split", "clips", "measure", "value")]
    for epoch in result.epochs:
        key = (epoch.number, "yes" if epoch.number == result.chosen else "no")
        rows += [(*key, "train", "", "loss", epoch.loss), (*key, "train", "", "learning_rate", epoch.learning_rate)]
        for split, tables in (("val", epoch.val), ("test", epoch.test or {})):
            for part, scores in tables.items():
                rows += [(*key, split, part, measure, value) for measure, value in (scores or {}).items()]
    return csv_table(rows)


def to_html(result: FitResult) -> bytes:
    """Return the page. It is self-contained, and the same result gives the same bytes."""
    numbers = [epoch.number for epoch in result.epochs]
    splits: dict[str, Sequence[RowTable | None]] = {
        "validation": [epoch.val for epoch in result.epochs],
        "test": [epoch.test for epoch in result.epochs],
    }
    charts = [curves("Loss per segment", numbers, {"training": [epoch.loss for epoch in result.epochs]})]
    for split, tables in splits.items():
        found = {part: [each[part] for each in tables if each] for part in PARTS}
        lines = {part: [100 * s["avg"] for s in scores if s] for part, scores in found.items() if scores and scores[0]}
        if lines:
            charts.append(curves(f"Avg on {split} (%)", numbers, lines, mark=result.chosen))
    return page(
        f"Training a head: {result.recipe.name}",
        facts(_facts(result)),
        section("Curves", f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(charts)}</div>'),
        section(
            f"Selected head: epoch {result.chosen}",
            table(("split", *(f"{part} {measure}" for part in PARTS for measure in MEASURES)), list(_scores(result))),
            f'<p class="dim">{text(selection(result))}</p>',
        ),
        section(
            "Every epoch",
            table(
                ("epoch", "learning rate", "loss", "gate: audio, vision", "val Avg", "test Avg"), list(_epochs(result))
            ),
        ),
    )


def _facts(result: FitResult) -> Iterator[tuple[str, object]]:
    changes = ", ".join(f"{name} {value}" for name, value in result.recipe.changes().items())
    data = result.data
    yield "recipe", f"{result.recipe.name}, {changes or 'as in the paper'}"
    yield "seed", result.recipe.seed
    yield "selected on", result.recipe.select
    yield "trained on", f"{data.train.summary}, {names_text(data.train_classes)}"
    yield "validated on", f"{data.val.summary}, {names_text(data.classes)}"
    yield "tested on", data.test.summary if data.test else "nothing"
    yield "embedding size", data.embedding_size
    yield "data", data.fingerprint[:12]
    yield "ovavel", version("ovavel")


def selection(result: FitResult) -> str:
    """Return a sentence on how the epoch was selected, and which one the test split would have selected."""
    if result.test_choice is None:
        return "The test split was not used."
    if result.recipe.select == "test":
        return "The epoch was selected on the test split, as in the published script: its test scores are optimistic."
    same = "the same epoch" if result.test_choice == result.chosen else f"epoch {result.test_choice}"
    return f"Selected on validation. Selecting on the test split, as the published script does, would give {same}."


def _scores(result: FitResult) -> Iterator[tuple[str, ...]]:
    for split, tables in (("validation", result.best.val), ("test", result.best.test)):
        if tables:
            parts = (tables[part] for part in PARTS)
            yield split, *(f"{100 * part[m.lower()]:.1f}" if part else "–" for part in parts for m in MEASURES)


def score_cells(scores: RowTable) -> Iterator[str]:
    """Yield a cell each for seen, unseen and all clips: the four measures in points, or "–" without such clips."""
    for part in PARTS:
        values = scores[part]
        yield " / ".join(f"{100 * value:.1f}" for value in values.values()) if values else "–"


def _epochs(result: FitResult) -> Iterator[tuple[str, ...]]:
    for epoch in result.epochs:
        gate = "–" if epoch.gate is None else f"{epoch.gate[0]:.3f}, {epoch.gate[1]:.3f}"
        totals = (_total(epoch.val), _total(epoch.test))
        yield str(epoch.number), f"{epoch.learning_rate:.2e}", f"{epoch.loss:.4f}", gate, *totals


def _total(tables: RowTable | None) -> str:
    total = tables and tables["total"]
    return f"{100 * total['avg']:.1f}" if total else "–"


def curves(title: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]], *, mark: float | None = None) -> str:
    """Draw `lines` (name → one value for each of `xs`) as inline SVG, with a vertical line at `mark`."""
    width, height, left, right, top, bottom = 560, 220, 56, 110, 26, 26
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    span = (xs[-1] - xs[0]) or 1

    def x(value: float) -> float:
        return round(left + (value - xs[0]) / span * (width - left - right), 2)

    def y(value: float) -> float:
        return round(height - bottom - (value - low) / (high - low) * (height - top - bottom), 2)

    grid = f'x1="{left}" x2="{width - right}" stroke="currentColor" opacity=".15"'
    parts = [
        f'<line y1="{y(tick)}" y2="{y(tick)}" {grid}/>'
        f'<text x="{left - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:.4g}</text>'
        for tick in (low + (high - low) * step / 4 for step in range(5))
    ]
    parts += [
        f'<text x="{x(tick)}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
        for tick in sorted({xs[0], xs[len(xs) // 2], xs[-1]})
    ]
    if mark is not None:
        parts.append(
            f'<line x1="{x(mark)}" x2="{x(mark)}" y1="{top}" y2="{height - bottom}" stroke="currentColor" '
            'opacity=".5" stroke-dasharray="4 3"><title>kept</title></line>'
        )
    labels = sorted((y(line[-1]), name) for name, line in lines.items())
    places: dict[str, float] = {}
    for place, name in labels:  # spread out: the labels of lines that end close together would overlap
        places[name] = max(place, max(places.values(), default=-99.0) + 13)
    for (name, line), colour in zip(lines.items(), SERIES, strict=False):
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(xs, line, strict=True))
        dots = "".join(
            f'<circle cx="{x(a)}" cy="{y(b)}" r="3" fill="{colour}"><title>{text(f"{name} {a:g}: {b:.4g}")}</title>'
            "</circle>"
            for a, b in zip(xs, line, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
            f'<text x="{width - right + 10}" y="{places[name] + 4}" style="fill:{colour}">{text(name)}</text>'
        )
    return (
        f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="11" '
        f'font-family="system-ui,sans-serif" fill="currentColor"><title>{text(title)}</title>'
        f'<text x="{left}" y="14" font-size="13">{text(title)}</text>{"".join(parts)}</svg>'
    )
