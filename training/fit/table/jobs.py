"""The runs of a table, in the order in which they are trained, and how far they are together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ovavel.runtime.system.files import output_error
from ovavel.runtime.system.progress import Progress
from ovavel.training.fit.folder import TRUNK
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import RESULT, FitResult
from ovavel.training.fit.table.suites import Row

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset

__all__ = ["Job", "Steps", "lend_trunk", "lender", "table_jobs"]


class Job(Struct, frozen=True):
    """One run."""

    recipe: Recipe
    trunk: Recipe | None
    """How the trunk is trained, where it is another row's head."""
    folder: Path


def table_jobs(rows: Sequence[Row], seeds: Sequence[int], out: Path) -> list[Job]:
    """Return all runs: the largest share of the training clips first, and of these what is a trunk, then what has one.

    Runs with a trunk take longest, so they do not come last where several are trained at once.
    """
    recipes = {row.name: row.recipe for row in rows if row.recipe}
    jobs = []
    for recipe in recipes.values():
        for seed in seeds:
            trunk = recipes.get(recipe.trunk or "")
            if trunk:
                trunk = None if trunk.trunk else replace(trunk, seed=seed, train_ratio=recipe.train_ratio)
            jobs.append(Job(replace(recipe, seed=seed), trunk, out / recipe.name / f"seed-{seed}"))
    lenders = {job.trunk.name for job in jobs if job.trunk}

    def place(job: Job) -> tuple[float, int]:
        return -job.recipe.train_ratio, 0 if job.recipe.name in lenders else 1 if job.trunk else 2

    return sorted(jobs, key=place)


def lender(job: Job, out: Path) -> Path | None:
    """Return the folder of the run whose head is the trunk of `job`; None where it has no trunk of another row."""
    return out / job.trunk.name / job.folder.name if job.trunk else None


def lend_trunk(job: Job, out: Path) -> None:
    """Copy the run of a row that is the trunk of `job`, so that it is not trained a second time.

    Raises:
        OutputError: it could not be copied.
    """
    source = lender(job, out)
    if source is None or (job.folder / TRUNK).exists():
        return
    result = FitResult.read(source)
    if result is None or result.recipe != job.trunk:
        return
    copying = job.folder / f".{TRUNK}.copy"
    try:
        shutil.rmtree(copying, ignore_errors=True)
        shutil.copytree(source, copying)
        copying.rename(job.folder / TRUNK)
    except OSError as error:
        raise output_error(job.folder, error) from error


class Steps:
    """The steps of all runs that are still to be done, as one progress."""

    def __init__(self, dataset: Dataset, jobs: Sequence[Job], *, overwrite: bool, progress: Progress) -> None:
        self._progress = progress
        clips = {
            ratio: len(dataset.select("train", train_ratio=ratio)) for ratio in {j.recipe.train_ratio for j in jobs}
        }
        left = [job for job in jobs if overwrite or not (job.folder / RESULT).exists()]
        self._size = {
            job.folder: job.recipe.epochs * -(-clips[job.recipe.train_ratio] // job.recipe.batch_clips) for job in left
        }
        self._done = dict.fromkeys(self._size, 0.0)
        self._number = {job.folder: number for number, job in enumerate(left, 1)}

    @property
    def runs(self) -> int:
        """How many runs are still to be done."""
        return len(self._size)

    def of(self, job: Job) -> Progress:
        """Return the progress of one run."""
        size, number = self._size.get(job.folder, 0), self._number.get(job.folder, 0)
        name = f"{job.recipe.name}, seed {job.recipe.seed} ({number} of {self.runs})"

        def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
            self._done[job.folder] = (done or 0.0) / (total or 1.0) * size
            shown = f"{name}, trunk" if what.startswith(TRUNK) else name
            self._progress("training", sum(self._done.values()), sum(self._size.values()), f"{shown}, {note}")

        return report

    def finished(self, job: Job) -> None:
        """Count all steps of a run, even if it ended early."""
        self._done[job.folder] = self._size.get(job.folder, 0)
