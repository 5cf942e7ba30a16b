"""The paper's table, reproduced: recipes over several seeds, next to training-free and published results.

Shapes: N clips, T segments per clip, D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ovavel.eval.accuracy import protocols as ovave
from ovavel.eval.accuracy.bootstrap import LEVEL, RESAMPLES, SEED, intervals
from ovavel.eval.accuracy.metrics import each_agreement, each_clip
from ovavel.eval.accuracy.protocols import PUBLISHED, score_rows, score_rows_agreement, too_damaged
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.fusion import cosine_similarity
from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.palette import SERIES
from ovavel.runtime.reporting.text import names_told
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.fit.data import Data, Part, read_data
from ovavel.training.fit.recipes import RECIPES, Recipe
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.result import DataInfo, FitResult, RowTable, row_table
from ovavel.training.fit.train import HEAD, decide_labels, fit_data
from ovavel.training.heads.temporal import TemporalHead

if TYPE_CHECKING:
    from ovavel.eval.datasets.feature_cache import FeatureCache
    from ovavel.eval.datasets.ovavebench import OVAVEBench

__all__ = [
    "Line",
    "Results",
    "cells",
    "notes",
    "run_table",
    "summarize",
    "to_csv",
    "to_html",
    "untrained",
    "why_not_published",
]

_CHANCE_DRAWS = 10
_CLIPS = 256  # at once
_PUBLISHED: Mapping[str, str] = {
    "paper": "fine-tuned",
    "published-script": "fine-tuned",
    "linear": "Linear in place of the block",
    "two-blocks": "two blocks",
    "cross-modal": "cross-modal only",
    "prob-avg": "Prob-avg",
    "feature-avg": "Fea-avg",
    "without-other": "fine-tuned without other",
    "ratio-75": "75 % of the training data",
    "ratio-50": "50 % of the training data",
    "ratio-25": "25 % of the training data",
}

Intervals = dict[str, dict[str, tuple[float, float]] | None]
"""Part of the clips → measure → lower and upper end; None where the part has fewer than two clips."""
PartialTable = Mapping[str, Mapping[str, float | None] | None]
"""Like `RowTable`, but figures may be unknown."""


class Line(Struct, frozen=True, kw_only=True):
    """One method on the test split."""

    name: str
    mean: RowTable
    """Over the seeds."""
    deviation: RowTable | None = None
    """Sample standard deviation over the seeds; None for fewer than two."""
    interval: Intervals | None = None
    """Bootstrap interval of each score over the clips; None over several seeds."""
    seeds: tuple[int, ...] = ()
    """Empty where nothing is trained."""
    epochs: tuple[int, ...] = ()
    """The selected epoch of each seed."""
    published: str | None = None
    """Name of the corresponding published row."""


class Results(Struct, frozen=True, kw_only=True):
    """Contents of a table."""

    dataset_fingerprint: str
    data: DataInfo
    why_not_published: str
    """Why published figures are not shown; empty where they are."""
    ratios: dict[str, str]
    """Recipe that uses a share of the training clips → description of that share."""
    lines: tuple[Line, ...]

    def encode(self) -> bytes:
        """Return the results as JSON, with the published figures where they are comparable."""
        published = {
            name: {"rows": _published_table(name), "total_avg": each.total_avg, "source": each.source}
            for name, each in PUBLISHED.items()
        }
        bootstrap = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
        document = {"ovavel": version("ovavel"), "intervals": bootstrap, **msgspec.to_builtins(self)}
        return msgspec.json.format(
            msgspec.json.encode(document | ({} if self.why_not_published else {"published": published})), indent=2
        )


def _published_table(name: str) -> PartialTable:
    """Return the figures of a published row; unknown ones are None."""
    measures = [measure.lower() for measure in MEASURES]
    parts = zip(PARTS, PUBLISHED[name].figures, strict=True)
    return {part: dict(zip(measures, figures, strict=True)) for part, figures in parts}


def run_table(
    dataset: OVAVEBench,
    cache: FeatureCache,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Results:
    """Train each recipe with each seed into `out`/RECIPE/seed-N, unless that is complete, and score all on test.

    Raises:
        DatasetError: the cache does not match the dataset, or a share of the training clips is unavailable.
        UsageError: `out` holds runs of other recipes or data.
    """
    ratios = {recipe.name: dataset.describe_ratio(recipe.train_ratio) for recipe in recipes}
    jobs = [(recipe, seed) for recipe in recipes for seed in seeds]
    found: dict[tuple[str, int], FitResult] = {}
    ends: dict[str, Intervals] = {}
    first: tuple[Line, ...] = ()
    info: DataInfo | None = None
    # Sorted by ratio, so that only one selection of training clips is in memory at a time.
    for ratio, group in groupby(sorted(jobs, key=lambda job: -job[0].train_ratio), key=lambda job: job[0].train_ratio):
        data = read_data(dataset, cache, ratio)
        assert data.test
        info = info or DataInfo.of(data)
        first = first or untrained(data.test, data.text)
        for recipe, seed in group:
            whole = _overall(progress, len(found), len(jobs), f"{recipe.name}, seed {seed}")
            folder = out / recipe.name / f"seed-{seed}"
            found[recipe.name, seed] = fit_data(
                replace(recipe, seed=seed), data, folder, device=device, overwrite=overwrite, progress=whole
            )
            if len(seeds) == 1:
                ends[recipe.name] = _head_interval(folder / HEAD, recipe, data)
        del data
    assert info
    assert info.test
    return Results(
        dataset_fingerprint=dataset.fingerprint,
        data=info,
        why_not_published=why_not_published(info),
        ratios={recipe.name: ratios[recipe.name] for recipe in recipes if recipe.train_ratio < 1},
        lines=(
            *first,
            *(summarize([found[recipe.name, seed] for seed in seeds], ends.get(recipe.name)) for recipe in recipes),
        ),
    )


def why_not_published(info: DataInfo) -> str:
    """Return why published figures are not comparable with scores on these clips, or an empty string."""
    assert info.test
    splits = {"test": info.test, "train": info.train, "val": info.val}
    reasons = (too_damaged(name, part.clips, part.damaged) for name, part in splits.items())
    other = ovave.why_not_published("test", info.classes, info.test.clips + info.test.damaged)
    return other or next(filter(None, reasons), "")


def _head_interval(head: Path, recipe: Recipe, data: Data) -> Intervals:
    assert data.test
    labels = decide_labels(TemporalHead.load(head), data.test, data.text, background=recipe.background)
    return _interval(each_clip(labels, data.test.truth, len(data.text)), data.test)


def _interval(each: NDArray[np.float64], part: Part) -> Intervals:
    """Return the intervals of the per-clip scores (N, 4), by part and measure."""
    measures = [measure.lower() for measure in MEASURES]
    return {
        name: ends and dict(zip(measures, zip(*ends, strict=True), strict=True))
        for name, ends in intervals(each, part.seen).items()
    }


def _overall(progress: Progress, run: int, runs: int, name: str) -> Progress:
    """Return the progress of one of several runs that take as many steps each, as a part of all of them."""

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        total = total or 1.0
        progress(what, run * total + (done or 0.0), runs * total, f"{name} ({run + 1} of {runs}), {note}")

    return report


def untrained(part: Part, text: TextEmbeddings) -> tuple[Line, ...]:
    """Score baselines without training: two kinds of chance, agreement with and without the background, and fusion.

    Args:
        part: clips with labels among all names.
        text: embeddings of all C names for each sense.
    """
    background, random = len(text) - 1, np.random.default_rng(0)
    truth, seen = part.truth, part.seen

    def line(name: str, labels: NDArray[np.integer]) -> Line:
        mean = row_table(score_rows(labels, truth, seen, len(text)))
        return Line(name=name, mean=mean, interval=_interval(each_clip(labels, truth, len(text)), part))

    def agreement(name: str, classes: int, published: str | None) -> Line:
        senses = (_arg_max(part.vision, text.vision[:classes]), _arg_max(part.audio, text.audio[:classes]))
        mean = row_table(score_rows_agreement(*senses, truth, seen, len(text)))
        each = each_agreement(*senses, truth, len(text))
        return Line(name=name, mean=mean, interval=_interval(each, part), published=published)

    draws = (random.integers(0, len(text), truth.shape) for _ in range(_CHANCE_DRAWS))
    chance = [row_table(score_rows(labels, truth, seen, len(text))) for labels in draws]
    return (
        Line(name="chance: random classes", mean=_over(chance, np.mean)),
        line("background everywhere", np.full(truth.shape, background)),
        agreement("agreement, training-free", len(text), "training-free"),
        agreement("agreement without background", background, None),
        line("fused, training-free", decide_labels(TemporalHead(0), part, text)),
    )


def _arg_max(embeddings: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the most similar class: (N, T, D) and (C, D) → (N, T)."""
    chunks = (embeddings[start : start + _CLIPS] for start in range(0, len(embeddings), _CLIPS))
    return np.concatenate([cosine_similarity(chunk, text).argmax(axis=-1) for chunk in chunks])


def summarize(results: Sequence[FitResult], interval: Intervals | None = None) -> Line:
    """Return mean and deviation of one recipe over its seeds, on the test split; `interval` is that of a single seed.

    Published figures apply to the named recipe only; a recipe with modified fields has none.
    """
    tables = [result.best.test for result in results if result.best.test]
    assert len(tables) == len(results)
    recipe = results[0].recipe
    name = recipe.name
    known = RECIPES.get(name)
    return Line(
        name=name,
        mean=_over(tables, np.mean),
        deviation=_over(tables, lambda values: np.std(values, ddof=1)) if len(tables) > 1 else None,
        seeds=tuple(result.recipe.seed for result in results),
        epochs=tuple(result.chosen for result in results),
        interval=interval,
        published=_PUBLISHED.get(name) if known and recipe == replace(known, seed=recipe.seed) else None,
    )


def _over(tables: Sequence[RowTable], reduce: Callable[[list[float]], np.floating]) -> RowTable:
    return {
        part: {measure: float(reduce([table[part][measure] for table in tables])) for measure in scores}  # type: ignore[index]
        if scores
        else None
        for part, scores in tables[0].items()
    }


def cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: method and its 12 figures in points; published rows next to ours ("–": unknown)."""
    if not results.why_not_published:
        ours = {line.published for line in results.lines}
        for name, each in PUBLISHED.items():
            if each.rows and name not in ours:
                yield f"published: {name}", *_points(_published_table(name))
    for line in results.lines:
        yield line.name, *_points(line.mean, line.deviation, line.interval)
        if line.published and not results.why_not_published:
            yield f"  published: {line.published}", *_points(_published_table(line.published))


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
    table = _published_table(known) if known else {}
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
                ("vocabulary", names_told(results.data.classes)),
                ("trained on", names_told(results.data.train_classes)),
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
