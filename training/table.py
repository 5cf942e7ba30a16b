"""The paper's table over again: recipes over several seeds, beside what needs no training and what was published.

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

from ovavel.eval.ovave import PUBLISHED, score_rows, score_rows_agreement
from ovavel.eval.page import facts, page, section, table, text
from ovavel.runtime.fusion import cosine_similarity
from ovavel.runtime.wording import names_told
from ovavel.training.fit import Progress, evaluate, fit_data
from ovavel.training.fit_data import Part, read_data
from ovavel.training.fit_result import DataInfo, FitResult, RowTable, row_table
from ovavel.training.recipes import Recipe
from ovavel.training.report import MEASURES, PARTS
from ovavel.training.temporal import TemporalHead

if TYPE_CHECKING:
    from ovavel.eval.features import FeatureCache
    from ovavel.eval.ovavebench import OVAVEBench

__all__ = ["Line", "Results", "cells", "notes", "run_table", "summarize", "to_html", "untrained"]

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
    "ratio-75": "75 % of the training data",
    "ratio-50": "50 % of the training data",
    "ratio-25": "25 % of the training data",
}


class Line(Struct, frozen=True, kw_only=True):
    """One method on the test split."""

    name: str
    mean: RowTable
    """Over the seeds."""
    deviation: RowTable | None = None
    """Standard deviation over the seeds (of a sample); None for less than two."""
    seeds: tuple[int, ...] = ()
    """None where nothing is trained."""
    epochs: tuple[int, ...] = ()
    """Which epoch validation picked, for each seed."""
    published: str | None = None
    """Name of the published row it is to be compared with."""


class Results(Struct, frozen=True, kw_only=True):
    """Everything a table holds."""

    dataset_fingerprint: str
    data: DataInfo
    as_published: bool
    """Whether this is the test split that the published figures are of, as far as its counts tell."""
    ratios: dict[str, str]
    """Recipe that uses a share of the training clips → which share that is."""
    lines: tuple[Line, ...]

    def encode(self) -> bytes:
        """Return it as JSON, with the published figures where they belong."""
        published = {
            name: {"rows": row_table(each.rows) if each.rows else None, "total_avg": each.total_avg}
            for name, each in PUBLISHED.items()
        }
        document = {"ovavel": version("ovavel"), **msgspec.to_builtins(self)}
        return msgspec.json.format(
            msgspec.json.encode(document | ({"published": published} if self.as_published else {})), indent=2
        )


def run_table(
    dataset: OVAVEBench,
    cache: FeatureCache,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = lambda _done, _total, _news: None,
) -> Results:
    """Train each recipe with each seed into `out`/RECIPE/seed-N, unless that is done, and score all on the test split.

    Raises:
        DatasetError: the cache does not fit the dataset, or a share of the training clips is unavailable.
        UsageError: `out` holds runs of other recipes or data.
    """
    ratios = {recipe.name: dataset.describe_ratio(recipe.train_ratio) for recipe in recipes}
    jobs = [(recipe, seed) for recipe in recipes for seed in seeds]
    found: dict[tuple[str, int], FitResult] = {}
    first: tuple[Line, ...] = ()
    info: DataInfo | None = None
    # Only one choice of the training clips is in memory at a time.
    for ratio, group in groupby(sorted(jobs, key=lambda job: -job[0].train_ratio), key=lambda job: job[0].train_ratio):
        data = read_data(dataset, cache, ratio)
        assert data.test
        info = info or DataInfo.of(data)
        first = first or untrained(data.test, data.text)
        for recipe, seed in group:
            tell = _Share(progress, len(found), len(jobs), f"{recipe.name}, seed {seed}")
            folder = out / recipe.name / f"seed-{seed}"
            found[recipe.name, seed] = fit_data(
                replace(recipe, seed=seed), data, folder, device=device, overwrite=overwrite, progress=tell
            )
        del data
    assert info
    assert info.test
    return Results(
        dataset_fingerprint=dataset.fingerprint,
        data=info,
        as_published=(info.classes, info.test.clips + info.test.damaged) == (68, 5820),
        ratios={recipe.name: ratios[recipe.name] for recipe in recipes if recipe.train_ratio < 1},
        lines=(*first, *(summarize([found[recipe.name, seed] for seed in seeds]) for recipe in recipes)),
    )


class _Share:
    """Tells how far all runs are, from how far one of them is."""

    def __init__(self, progress: Progress, run: int, runs: int, name: str) -> None:
        self._progress, self._run, self._runs, self._name = progress, run, runs, name

    def __call__(self, done: int, total: int, news: str) -> None:
        news = f"{self._name} ({self._run + 1} of {self._runs}), {news}"
        self._progress(self._run * total + done, self._runs * total, news)


def untrained(part: Part, text: NDArray[np.float32]) -> tuple[Line, ...]:
    """Score what needs no training: two kinds of chance, agreement with and without the background, and fusion.

    Args:
        part: clips with their truth among all names.
        text: (C, D) embeddings of all names.
    """
    background, random = len(text) - 1, np.random.default_rng(0)
    truth, seen = part.truth, part.seen

    def score(labels: NDArray[np.integer]) -> RowTable:
        return row_table(score_rows(labels, truth, seen, len(text)))

    def agreement(classes: int) -> RowTable:
        senses = (_arg_max(part.vision, text[:classes]), _arg_max(part.audio, text[:classes]))
        return row_table(score_rows_agreement(*senses, truth, seen, len(text)))

    chance = [score(random.integers(0, len(text), truth.shape)) for _ in range(_CHANCE_DRAWS)]
    free = evaluate(TemporalHead(0, text.shape[1]), part, text)
    return (
        Line(name="chance: random classes", mean=_over(chance, np.mean)),
        Line(name="background everywhere", mean=score(np.full(truth.shape, background))),
        Line(name="agreement, training-free", mean=agreement(len(text)), published="training-free"),
        Line(
            name="agreement without background",
            mean=agreement(background),
            published="without other",
        ),
        Line(name="fused, training-free", mean=row_table(free)),
    )


def _arg_max(embeddings: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.intp]:
    """(N, T, D) and (C, D) → (N, T) most similar class."""
    chunks = (embeddings[start : start + _CLIPS] for start in range(0, len(embeddings), _CLIPS))
    return np.concatenate([cosine_similarity(chunk, text).argmax(axis=-1) for chunk in chunks])


def summarize(results: Sequence[FitResult]) -> Line:
    """Mean and deviation of one recipe over its seeds, on the test split."""
    tables = [result.best.test for result in results if result.best.test]
    assert len(tables) == len(results)
    name = results[0].recipe.name
    return Line(
        name=name,
        mean=_over(tables, np.mean),
        deviation=_over(tables, lambda values: np.std(values, ddof=1)) if len(tables) > 1 else None,
        seeds=tuple(result.recipe.seed for result in results),
        epochs=tuple(result.chosen for result in results),
        published=_PUBLISHED.get(name),
    )


def _over(tables: Sequence[RowTable], reduce: Callable[[list[float]], np.floating]) -> RowTable:
    return {
        part: {measure: float(reduce([table[part][measure] for table in tables])) for measure in scores}  # type: ignore[index]
        if scores
        else None
        for part, scores in tables[0].items()
    }


def cells(results: Results) -> Iterator[tuple[str, ...]]:
    """Rows of the table: method, the 12 figures in points, and the published Avg over all clips ("–": none)."""
    if results.as_published:
        ours = {line.published for line in results.lines}
        for name, each in PUBLISHED.items():
            if each.rows and name not in ours:
                yield (f"published: {name}", *_points(row_table(each.rows), None), f"{100 * each.total_avg:.1f}")
    for line in results.lines:
        known = PUBLISHED[line.published] if line.published and results.as_published else None
        yield line.name, *_points(line.mean, line.deviation), f"{100 * known.total_avg:.1f}" if known else "–"
        if known and known.rows:
            yield f"  published: {line.published}", *_points(row_table(known.rows), None), ""


def _points(mean: RowTable, deviation: RowTable | None) -> Iterator[str]:
    for part in PARTS:
        scores, spread = mean[part], deviation[part] if deviation else None
        for measure in map(str.lower, MEASURES):
            value = "–" if scores is None else f"{100 * scores[measure]:.1f}"
            yield f"{value} ± {100 * spread[measure]:.1f}" if spread else value


def notes(results: Results) -> Iterator[str]:
    """What has to be known to read the table."""
    data = results.data
    assert data.test
    yield f"Tested on {data.test.counted}; trained on {data.train.counted}, validated on {data.val.counted}."
    seeds = sorted({seed for line in results.lines for seed in line.seeds})
    yield f"Seeds: {', '.join(map(str, seeds))}. Epochs are picked on validation unless a recipe says otherwise."
    for name, told in results.ratios.items():
        yield f"{name}: {told}."
    if not results.as_published:
        yield "Published figures are for the 5 820 clips of OV-AVEBench's own test split, so none stand beside these."


def to_html(results: Results) -> bytes:
    """The table and a picture of it, as one page that needs nothing else."""
    head = ("method", *(f"{part} {measure}" for part in PARTS for measure in MEASURES), "published Avg")
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
            *(f'<p class="dim">{text(n)}</p>' for n in notes(results)),
        ),
    )


def _bars(lines: Sequence[Line]) -> str:
    """Draw Avg of seen, unseen and all clips as bars, with the deviation over seeds."""
    colours, left, width, step = ("#2f6fb0", "#e08e45", "#2c8a57"), 290, 480, 44
    parts = []
    for number, line in enumerate(lines):
        top = 24 + number * step
        parts.append(f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{text(line.name)}</text>')
        for row, (part, colour) in enumerate(zip(PARTS, colours, strict=True)):
            scores, spread = line.mean[part], (line.deviation or {}).get(part)
            if scores is None:
                continue
            long, y = scores["avg"] * width, top + row * 11
            parts.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="10" fill="{colour}"/>')
            told, reach = f"{100 * scores['avg']:.1f}", 0.0
            if spread:
                reach = spread["avg"] * width
                whisker = f"M{left + long - reach:.1f} {y + 5}h{2 * reach:.1f}"
                parts.append(f'<path d="{whisker}" stroke="currentColor" stroke-width="2"/>')
                told += f" ± {100 * spread['avg']:.1f}"
            parts.append(f'<text x="{left + long + reach + 5:.1f}" y="{y + 9}" font-size="10">{part} {told}</text>')
    height = 24 + len(lines) * step
    return (
        f'<svg class="heat" viewBox="0 0 {left + width + 110} {height}" width="{left + width + 110}" role="img" '
        'font-size="12" font-family="system-ui,sans-serif" fill="currentColor"><title>Avg by method</title>'
        f"{''.join(parts)}</svg>"
    )
