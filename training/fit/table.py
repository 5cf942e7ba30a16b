"""The paper's table, reproduced: recipes over several seeds, next to training-free and published results.

Shapes: N clips, T segments per clip, D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.fit.data import Data, Part, read_data
from ovavel.training.fit.decide import decide_labels
from ovavel.training.fit.recipes import RECIPES, Recipe
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.result import DataInfo, FitResult, RowTable, row_table
from ovavel.training.fit.train import HEAD, fit_data
from ovavel.training.heads.base import load_head
from ovavel.training.heads.temporal import TemporalHead

if TYPE_CHECKING:
    from ovavel.eval.datasets.feature_cache import FeatureCache
    from ovavel.eval.datasets.ovavebench import OVAVEBench

__all__ = [
    "Intervals",
    "Line",
    "PartialTable",
    "Results",
    "published_table",
    "run_table",
    "summarize",
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
    "ave": "AVE",
    "psp": "PSP",
    "cmra": "CMRA",
    "mm-pyramid": "MM-Pyramid",
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
            name: {"rows": published_table(name), "total_avg": each.total_avg, "source": each.source}
            for name, each in PUBLISHED.items()
        }
        bootstrap = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
        document = {"ovavel": version("ovavel"), "intervals": bootstrap, **msgspec.to_builtins(self)}
        return msgspec.json.format(
            msgspec.json.encode(document | ({} if self.why_not_published else {"published": published})), indent=2
        )


def published_table(name: str) -> PartialTable:
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
    labels = decide_labels(load_head(head), data.test, data.text, background=recipe.background)
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
