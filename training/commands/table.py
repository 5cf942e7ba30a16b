"""`ovavel train table`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.errors import MissingExtraError, UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Seed
from ovavel.training.commands.recipe_flags import RecipeFlags, apply_flags
from ovavel.training.fit.recipes import find_recipe

if TYPE_CHECKING:
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.training.fit.table import Results

__all__ = ["Table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Train recipes over several seeds and print the paper's table beside the published figures.

    Examples:
        ovavel train table --data OV-AVEBench --features features --out table
        ovavel train table --data OV-AVEBench --features features --out table --recipes paper residual --seeds 0 1 2 3 4
        ovavel train table --data OV-AVEBench --features features --out table --recipes paper mine.toml

    By default trains the paper's recipe, its ablations and a control with shuffled labels, with the paper's seed. The
    table also has rows without training: chance, agreement with and without the background, and fused scores. Each run
    is a folder in --out, as 'ovavel train head' writes it; completed runs are not repeated, so recipes and seeds can be
    added, and an interrupted table resumes. Fields can be changed for all recipes at once.

    Writes table.json, table.csv and table.html. Published figures are shown only if the test split is the published one
    and at most 2 % of each split's clips are damaged, and only for unchanged recipes. A single seed has no standard
    deviation: its scores have bootstrap intervals over clips.
    """

    dataset: DatasetOptions
    """Where the annotations are."""
    features: Path
    """Feature cache, made by 'ovavel train features'."""
    out: Path
    """Folder for all runs and the table."""
    recipes: tuple[str, ...] = (
        *("paper", "linear", "two-blocks", "cross-modal", "prob-avg", "feature-avg", "without-other"),
        *("ratio-75", "ratio-50", "ratio-25", "shuffled-labels"),
    )
    """Names of recipes, or TOML files with one each; see docs/training.md."""
    seeds: tuple[Seed, ...] = (123,)
    """Seeds; each recipe is trained once with each."""
    changes: RecipeFlags = None
    """Fields to change in every recipe."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:N, or auto. If the device is unavailable, the command fails."""
    overwrite: bool = False
    """Start every run over."""

    def run(self) -> int:
        """Train the missing runs and print the table."""
        from rich.console import Console

        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.system.files import atomic_write
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        recipes = [apply_flags(find_recipe(name), self.changes) for name in dict.fromkeys(self.recipes)]
        seeds = list(dict.fromkeys(self.seeds))
        if not recipes or not seeds:
            raise UsageError("name at least one recipe and one seed")
        names = [recipe.name for recipe in recipes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"two of the recipes are called {min(twice)!r}: rename one of them")
        if getattr(self.changes, "seed", None) is not None:
            raise UsageError("--seed is for a single run; give --seeds instead")
        try:
            from ovavel.training.fit.table import run_table
            from ovavel.training.fit.table_report import to_csv, to_html
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train", need="Training heads") from error
        from ovavel.eval.datasets.feature_cache import FeatureCache
        from ovavel.runtime.system.bars import rated_bar

        console = Console(stderr=True, highlight=False)
        with terminated_as_interrupted():
            with console.status("reading the annotations"):
                dataset, cache = self.dataset.open(), FeatureCache.open(self.features)
            with rated_bar("steps", console=console) as progress:
                results = run_table(
                    dataset,
                    cache,
                    recipes,
                    seeds,
                    self.out,
                    device=self.device,
                    overwrite=self.overwrite,
                    progress=progress,
                )
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
    from ovavel.training.fit.table_report import cells, notes

    table = RichTable(title="test split, %")
    table.add_column("method", no_wrap=True)
    for part in PARTS:
        table.add_column(f"{part}\n{'  '.join(MEASURES)}", justify="right", no_wrap=True)
    for name, *figures in cells(results):
        groups = (figures[start : start + len(MEASURES)] for start in range(0, len(figures), len(MEASURES)))
        table.add_row(escape(name), *(_short(group) for group in groups))
    console.print(table)
    for note in notes(results):
        console.print(note, markup=False, style="bold red" if note.startswith("WARNING") else "")


def _short(figures: list[str]) -> str:
    """Measures of one part in a cell; the spread of Avg alone, as the files have the others."""
    *others, avg = figures
    return " ".join([*(figure.split(" ")[0].rjust(4) for figure in others), avg.replace(" ", "").rjust(4)])
