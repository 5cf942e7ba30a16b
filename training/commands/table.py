"""`ovavel train table`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import InputError, MissingExtraError, UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta, Seed
from ovavel.runtime.system.paths import check_path
from ovavel.training.commands.recipe_flags import RecipeFlags, apply_flags
from ovavel.training.fit.recipes import find_recipe
from ovavel.training.fit.table.suites import SuiteName, table_rows

if TYPE_CHECKING:
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.training.fit.table.results import Results

__all__ = ["Table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Train recipes over several seeds and print the paper's table beside the published figures.

    Examples:
        ovavel train table --data OV-AVEBench --features features --out table
        ovavel train table --data OV-AVEBench --features features --out table --suite all --seeds 0 1 2 3 4
        ovavel train table --data OV-AVEBench --features features --out table --recipes paper residual mine.toml

    --suite paper, the default, is every row of the paper's Tables 2 to 6: the systems, the ablations, and what needs no
    training. --suite all adds decision rules, later systems, our own recipes and a control. With --recipes alone the
    table has these recipes and what needs no training; with both, the recipes stand below the suite's rows. A row that
    cannot be made is listed as missing, with the reason and the command that would make it.

    Each run is a folder of --out, as 'ovavel train head' writes it; those that are complete are not repeated, so
    recipes and seeds can be added, and an interrupted table resumes. Fields of the recipes can be changed for all of
    them at once. The rows of a suite take a change only where their head has that setting and the row is not about it.

    Writes table.json, table.csv and table.html. The published figures are shown beside ours only where the test split
    is the one they are of and at most 2 % of each split's clips are damaged, and only beside recipes that were not
    changed. A single seed has no deviation: its scores have intervals by the bootstrap over clips.
    """

    dataset: DatasetOptions
    """Where the annotations are."""
    features: Path
    """Feature cache, made by 'ovavel train features'."""
    out: Path
    """Folder for all runs and the table."""
    suite: Maybe[SuiteName] = None
    """Which rows: paper or all. Default: paper, or none with --recipes."""
    recipes: Maybe[tuple[str, ...]] = None
    """Names of recipes, or TOML files with one each; see docs/training.md."""
    seeds: tuple[Seed, ...] = (123,)
    """Seeds; each recipe is trained once with each."""
    features_clip_clap: Maybe[Path] = None
    """Feature cache of CLIP & CLAP, for their row."""
    llm_scores: Maybe[Path] = None
    """JSON file that 'ovavel eval score --llm' wrote for the test split, for the row of a video language model."""
    texts: Many[Path] = ()
    """Bundles of the same encoders: one with further texts of the background ('ovavel vocab add --background'), and one
    with prompts ('ovavel bundle export --prompts'), or one with both, for the rows of decision rules with these."""
    changes: RecipeFlags = None
    """Fields to change in every recipe."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:N, or auto. If the device is unavailable, the command fails."""
    processes: Annotated[int, Meta(ge=1, le=MOST_WORKERS)] = 1
    """How many runs are trained at once, each in a process that has its share of the cores and reads the features into
    memory of its own. On a CPU, as many as there are cores take least time for small heads; on a GPU a few."""
    overwrite: bool = False
    """Start every run over."""

    def run(self) -> int:
        """Train the missing runs and print the table."""
        from rich.console import Console

        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.system.files import atomic_write, make_folder
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        recipes = [apply_flags(find_recipe(name), self.changes) for name in dict.fromkeys(self.recipes or ())]
        seeds = list(dict.fromkeys(self.seeds))
        if self.recipes == () or not seeds:
            raise UsageError("name at least one recipe and one seed")
        names = [recipe.name for recipe in recipes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"two of the recipes are called {min(twice)!r}: rename one of them")
        if getattr(self.changes, "seed", None) is not None:
            raise UsageError("--seed is for a single run; give --seeds instead")
        for path in (self.features_clip_clap, self.llm_scores, *self.texts):
            if path:
                check_path(path, InputError)
        try:
            from ovavel.training.fit.table.page import to_html
            from ovavel.training.fit.table.report import to_csv
            from ovavel.training.fit.table.run import Extras, Plan, run_table
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train", need="Training heads") from error
        from ovavel.eval.datasets.feature_cache import FeatureCache
        from ovavel.runtime.system.bars import rated_bar

        suite = self.suite or (None if recipes else "paper")
        extras = Extras(clip_clap=self.features_clip_clap, llm=self.llm_scores, texts=self.texts)
        plan = Plan(rows=table_rows(suite, recipes, self.changes), seeds=seeds, suite=suite, extras=extras)
        console = Console(stderr=True, highlight=False)
        with terminated_as_interrupted():
            with console.status("reading the annotations"):
                dataset, cache = self.dataset.open(), FeatureCache.open(self.features)
            with rated_bar("steps", console=console) as progress:
                results = run_table(
                    dataset,
                    cache,
                    plan,
                    self.out,
                    device=self.device,
                    overwrite=self.overwrite,
                    processes=self.processes,
                    progress=progress,
                )
            make_folder(self.out)
            atomic_write(self.out / "table.json", results.encode() + b"\n")
            atomic_write(self.out / "table.csv", to_csv(results))
            atomic_write(self.out / "table.html", to_html(results))
        _print(results, OutputConsole(highlight=False, soft_wrap=True))
        print(one_line(", ".join(str(self.out / f"table.{kind}") for kind in ("html", "csv", "json"))))
        return 0


def _print(results: Results, console: OutputConsole) -> None:
    from rich.markup import escape
    from rich.table import Table as RichTable

    from ovavel.training.fit.report import MEASURES, PARTS
    from ovavel.training.fit.table.report import (
        COST_HEAD,
        GAIN_HEAD,
        cost_cells,
        gain_cells,
        grouped_cells,
        missing_cells,
        notes,
    )

    table = RichTable(title="test split, %")
    table.add_column("method", no_wrap=True)
    for part in PARTS:
        table.add_column(f"{part}\n{'  '.join(MEASURES)}", justify="right", no_wrap=True)
    group_before = ""
    for group, (name, *figures) in grouped_cells(results):
        if group != group_before:
            table.add_section()
            table.add_row(f"[dim]{escape(group)}[/dim]")
            group_before = group
        groups = (figures[start : start + len(MEASURES)] for start in range(0, len(figures), len(MEASURES)))
        table.add_row(escape(name), *(_short(each) for each in groups))
    console.print(table)
    for title, head, rows in (
        ("drop from seen to unseen Avg (points), and cost", COST_HEAD, list(cost_cells(results))),
        ("differences of Avg, points", GAIN_HEAD, list(gain_cells(results))),
    ):
        if rows:
            more = RichTable(title=title)
            for number, column in enumerate(head):
                more.add_column(column, justify="right" if number else "left")
            for row in rows:
                more.add_row(*map(escape, row))
            console.print(more)
    for name, reason, command in missing_cells(results):
        console.print(f"Missing: {name}: {reason}. To make it: {command}", markup=False)
    for note in notes(results):
        console.print(note, markup=False, style="bold red" if note.startswith("WARNING") else "")


def _short(figures: list[str]) -> str:
    """Measures of one part in a cell; the spread of Avg alone, as the files have the others."""
    if figures[0] == "missing":
        return "missing"
    *others, avg = figures
    return " ".join([*(figure.split(" ")[0].rjust(4) for figure in others), avg.replace(" ", "").rjust(4)])
