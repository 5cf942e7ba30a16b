"""Make a table: train what is not trained yet, score every row on the test split, and measure what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ovavel.eval.accuracy.metrics import each_clip
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.fit.data import Data, read_data
from ovavel.training.fit.decide import decide_labels, runtime_head
from ovavel.training.fit.initial import needs_passes
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import DataInfo, FitResult, RowTable
from ovavel.training.fit.table.cost import one_window, training_seconds, window_times
from ovavel.training.fit.table.jobs import Steps, lend_trunk, table_jobs
from ovavel.training.fit.table.results import (
    Cost,
    Intervals,
    Line,
    Missing,
    Results,
    drop_of,
    gain_of,
    over_seeds,
    spread_of,
    why_not_published,
)
from ovavel.training.fit.table.rules import RULES_FOLDER, measure_rules, rule_window
from ovavel.training.fit.table.side_by_side import RunSource, train_side_by_side
from ovavel.training.fit.table.stored import NO_LLM, llm_line
from ovavel.training.fit.table.suites import BASE, DECIDED, Row, published_beside
from ovavel.training.fit.table.texts import OtherTexts, read_texts
from ovavel.training.fit.table.untrained import NO_CLIP_CLAP, clip_clap_line, interval_of, untrained
from ovavel.training.fit.times import read_times
from ovavel.training.fit.train import HEAD, fit_data
from ovavel.training.heads.base import load_head
from ovavel.training.heads.temporal import TemporalHead

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset

__all__ = ["Extras", "Plan", "run_table", "summarize"]


_NO_PASSES = Missing(
    reason="it trains on sound with stochastic depth, and the feature cache has no such passes",
    command="ovavel train features --data DATA --weights WEIGHTS --passes 5 --drop-path 0.1 --out FOLDER; then "
    "--features FOLDER",
)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What rows come from that cached features cannot give."""

    clip_clap: Path | None = None
    """Feature cache of CLIP & CLAP."""
    llm: Path | None = None
    """JSON of `ovavel eval score --llm`."""
    texts: Sequence[Path] = ()
    """Bundles with further texts of the background, or with prompts."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a table is to hold."""

    rows: Sequence[Row]
    """In their order; names are unique."""
    seeds: Sequence[int]
    """Each recipe is trained once with each."""
    suite: str | None = None
    extras: Extras = field(default_factory=Extras)


def run_table(
    dataset: Dataset,
    cache: FeatureCache,
    plan: Plan,
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    processes: int = 1,
    progress: Progress = no_progress,
) -> Results:
    """Train each recipe with each seed into `out`/RECIPE/seed-N, unless that is complete, and score all on test.

    With several `processes` as many runs are trained at once; PyTorch's threads are shared out among them.

    Raises:
        DatasetError: a cache does not match the dataset, or a share of the training clips is unavailable.
        DeviceError: the device is unavailable, or a training process was killed.
        InputError: the scores of a language model cannot be used.
        UsageError: `out` holds runs of other recipes or data.
    """
    plan = replace(plan, rows=[_makeable(row, cache) for row in plan.rows])
    recipes = [row.recipe for row in plan.rows if row.recipe]
    ratios = {each.name: dataset.describe_ratio(each.train_ratio) for each in recipes}
    lines, remarks = _from_elsewhere(dataset, plan)
    texts = read_texts(plan.extras.texts, dataset, cache)
    jobs = table_jobs(plan.rows, plan.seeds, out)
    steps = Steps(dataset, jobs, overwrite=overwrite, progress=progress)
    if processes > 1 and steps.runs > 1:
        source = RunSource(dataset=dataset, cache=cache, device=device, overwrite=overwrite)
        train_side_by_side(jobs, source, out, processes=min(processes, steps.runs), steps=steps)
        overwrite = False  # from here on, these runs are only read
    found: dict[tuple[str, int], FitResult] = {}
    ends: dict[str, Intervals] = {}
    info: DataInfo | None = None
    data: Data | None = None
    # Sorted by ratio, so that only one selection of training clips is in memory at a time.
    for ratio, group in groupby(jobs, key=lambda job: job.recipe.train_ratio):
        data = None
        data = read_data(dataset, cache, ratio)
        info = info or DataInfo.of(data)
        for job in group:
            lend_trunk(job, out)
            recipe = job.recipe
            found[recipe.name, recipe.seed] = fit_data(
                recipe, data, job.folder, trunk_by=job.trunk, device=device, overwrite=overwrite, progress=steps.of(job)
            )
            steps.finished(job)
            if len(plan.seeds) == 1:
                ends[recipe.name] = _head_interval(job.folder / HEAD, recipe, data)
    data = data or read_data(dataset, cache)
    info = info or DataInfo.of(data)
    assert data.test
    lines |= {line.name: line for line in untrained(data.test, data.text)}
    trained = {each.name: [found[each.name, seed] for seed in plan.seeds] for each in recipes}
    for row in plan.rows:
        if row.recipe:
            runs = [out / row.name / f"seed-{seed}" for seed in plan.seeds]
            line = summarize(trained[row.name], ends.get(row.name))
            lines[row.name] = msgspec.structs.replace(line, cost=_cost(runs, trained[row.name]))
    lines = _compared(lines, trained)
    base = {seed: out / BASE / f"seed-{seed}" / HEAD for seed in plan.seeds if BASE in trained}
    training = lines[BASE].cost.training_s if BASE in trained else None
    measured = measure_rules(plan.rows, data, base, out, seeds=plan.seeds, texts=texts, progress=progress)
    for name, line in measured.items():
        cost = msgspec.structs.replace(line.cost, training_s=training if line.seeds else None)
        lines[name] = msgspec.structs.replace(line, cost=cost)
    calls = _window_calls(plan, out, data, texts)
    lines = _timed(lines, calls, progress)
    return Results(
        dataset_fingerprint=dataset.fingerprint,
        data=info,
        why_not_published=why_not_published(info),
        ratios={each.name: ratios[each.name] for each in recipes if each.train_ratio < 1},
        lines=tuple(msgspec.structs.replace(lines[row.name], group=row.group, label=row.label) for row in plan.rows),
        suite=plan.suite,
        remarks=(*remarks, *_flags_left_out(plan.rows), *_side_by_side([job.folder for job in jobs])),
    )


def summarize(results: Sequence[FitResult], interval: Intervals | None = None) -> Line:
    """Return mean and deviation of one recipe over its seeds, on the test split; `interval` is that of a single seed.

    Published figures apply to the named recipe only; a recipe with modified fields has none.
    """
    tables = _tables(results)
    recipe = results[0].recipe
    return Line(
        name=recipe.name,
        mean=over_seeds(tables),
        deviation=over_seeds(tables, lambda values: np.std(values, ddof=1)) if len(tables) > 1 else None,
        seeds=tuple(result.recipe.seed for result in results),
        epochs=tuple(result.chosen for result in results),
        interval=interval,
        drop=drop_of(tables),
        published=published_beside(recipe),
    )


def _tables(results: Sequence[FitResult]) -> list[RowTable]:
    tables = [result.best.test for result in results if result.best.test]
    assert len(tables) == len(results)
    return tables


def _makeable(row: Row, cache: FeatureCache) -> Row:
    """Return `row` without its recipe where that needs passes that the cache lacks."""
    lacks = row.recipe and needs_passes(row.recipe) and not cache.info.passes
    return msgspec.structs.replace(row, recipe=None) if lacks else row


def _from_elsewhere(dataset: Dataset, plan: Plan) -> tuple[dict[str, Line], list[str]]:
    """Return the rows that are not of this cache, or why they are missing; and what to know of them."""
    lines: dict[str, Line] = {}
    remarks: list[str] = []
    for row in plan.rows:
        missing: Missing | None = None
        if row.source == "clip-clap":
            if plan.extras.clip_clap:
                lines[row.name], remark = clip_clap_line(row.name, dataset, FeatureCache.open(plan.extras.clip_clap))
                remarks.append(remark)
            else:
                missing = NO_CLIP_CLAP
        elif row.source == "llm":
            if plan.extras.llm:
                lines[row.name], remark = llm_line(
                    row.name, plan.extras.llm, dataset.fingerprint, len(dataset.select("test"))
                )
                remarks.append(remark)
            else:
                missing = NO_LLM
        elif row.source == "recipe" and row.recipe is None:
            missing = _NO_PASSES
        if missing:
            lines[row.name] = Line(name=row.name, published=row.published, missing=missing)
    return lines, remarks


def _head_interval(head: Path, recipe: Recipe, data: Data) -> Intervals:
    assert data.test
    labels = decide_labels(load_head(head), data.test, data.text, background=recipe.background)
    return interval_of(each_clip(labels, data.test.truth, len(data.text)), data.test)


def _cost(runs: Sequence[Path], results: Sequence[FitResult]) -> Cost:
    seconds = [training_seconds(run, len(result.epochs)) for run, result in zip(runs, results, strict=True)]
    known = [each for each in seconds if each is not None]
    return Cost(
        parameters=load_head(runs[0] / HEAD).parameter_count,
        training_s=spread_of(known) if len(known) == len(seconds) else None,
    )


def _compared(lines: dict[str, Line], trained: Mapping[str, Sequence[FitResult]]) -> dict[str, Line]:
    """Add to each trained row its gain over the paper's head."""
    if BASE not in trained:
        return lines
    base = _tables(trained[BASE])
    gains = {name: (gain_of(_tables(each), BASE, base),) for name, each in trained.items() if name != BASE}
    return {
        name: msgspec.structs.replace(line, gains=gains[name]) if name in gains else line
        for name, line in lines.items()
    }


def _window_calls(plan: Plan, out: Path, data: Data, texts: OtherTexts) -> dict[str, Callable[[], object]]:
    """Return, for each row that decides by a head or a rule, a call that does so for a window."""
    first, none = f"seed-{plan.seeds[0]}", runtime_head(TemporalHead(0))
    heads = {row.name: runtime_head(load_head(out / row.name / first / HEAD)) for row in plan.rows if row.recipe}
    for row in plan.rows:
        if row.rule and not texts.missing(row):
            alone = row.source == "rule"
            place = out / RULES_FOLDER / ("embeddings" if alone else first)
            heads[row.name] = rule_window(row, data, none if alone else heads[BASE], place, texts)
        elif row.source == "untrained" and row.name in DECIDED:
            heads[row.name] = none
    return {name: one_window(head, data.text) for name, head in heads.items()}


def _timed(lines: dict[str, Line], calls: Mapping[str, Callable[[], object]], progress: Progress) -> dict[str, Line]:
    """Add to each row that there is a call for how long that takes."""
    times = window_times(calls, progress)
    base = times.get(BASE)

    def timed(name: str, line: Line) -> Line:
        ratio = times[name] / base if base else None
        cost = msgspec.structs.replace(line.cost, window_ms=times[name], window_ratio=ratio)
        return msgspec.structs.replace(line, cost=cost)

    return {name: timed(name, line) if name in times else line for name, line in lines.items()}


def _side_by_side(runs: Sequence[Path]) -> list[str]:
    """Say which seconds of training are of runs that shared the machine."""
    most = max((each.side_by_side for run in runs for each in read_times(run)), default=1)
    return (
        [f"Training seconds were measured with up to {most} runs side by side: alone, a run may take less."]
        if most > 1
        else []
    )


def _flags_left_out(rows: Sequence[Row]) -> list[str]:
    """Say which flags do not apply to which rows, a sentence for each flag."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.left_out:
            names.setdefault(flag, []).append(row.name)
    return [f"--{flag.replace('_', '-')} leaves {', '.join(each)} unchanged." for flag, each in names.items()]
