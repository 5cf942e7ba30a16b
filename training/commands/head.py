"""`ovavel train head`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.reporting.text import one_line
from ovavel.training.commands.recipe_flags import RecipeFlags, apply_flags
from ovavel.training.fit.recipes import find_recipe

if TYPE_CHECKING:
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.training.fit.result import FitResult

__all__ = ["Head"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Fine-tune a temporal head on cached features.

    Examples:
        ovavel train head --data OV-AVEBench --features features --out heads/paper
        ovavel train head --data OV-AVEBench --features features --recipe residual --epochs 10 --out heads/residual
        torchrun --nproc-per-node 2 --no-python ovavel train head --data OV-AVEBench --features features --out head

    The recipe "paper" is the published one; the others are its ablations (linear, two-blocks, cross-modal,
    prob-avg, feature-avg, without-other, ratio-75, ratio-50, ratio-25, published-script), the same with noisy sound
    (paper-drop-path, which needs features with --passes), other systems' heads (ave, psp, cmra, mm-pyramid, complex), a
    control (shuffled-labels), and our own (residual, learned-gate, blended, unit-inputs, smooth, sharp, mixed,
    averaged, sharp-mixed, gated-smooth, demo). Every field of a recipe is a flag.

    --out receives the best head (head.safetensors, calibrated, for 'ovavel bundle export --head'), result.json,
    epochs.csv, report.html and event files for TensorBoard. You can stop the command at any time, even with kill -9,
    and run it again: it resumes after its last complete epoch. On a CPU with the same number of threads, the same seed
    gives the same head bit for bit, interrupted or not. Under torchrun, each process trains its share of every step:
    losses and head are the same except for rounding; all processes need access to --out.
    """

    dataset: DatasetOptions
    """Where the annotations are."""
    features: Path
    """Feature cache, made by 'ovavel train features'."""
    out: Path
    """Folder for the head and its reports."""
    recipe: str = "paper"
    """Name of the recipe to start from, or a TOML file with one; see docs/training.md."""
    changes: RecipeFlags = None
    """Fields of the recipe to change."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:N, or auto. If the device is unavailable, the command fails."""
    no_tensorboard: bool = False
    """Write no event files for TensorBoard."""
    overwrite: bool = False
    """Start over if --out holds another run."""

    def run(self) -> int:
        """Train the head and print its scores."""
        from rich.console import Console

        from ovavel.runtime.errors import MissingExtraError
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        recipe = apply_flags(find_recipe(self.recipe), self.changes)
        try:
            from ovavel.training.fit.calibrate import calibrate_head
            from ovavel.training.fit.processes import processes
            from ovavel.training.fit.train import HEAD, fit_data
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train", need="Training a head") from error
        from ovavel.eval.datasets.feature_cache import FeatureCache
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.training.fit.data import read_data

        console = Console(stderr=True, highlight=False)
        with terminated_as_interrupted(), processes(self.device) as (rank, device):
            console.quiet = rank > 0
            with console.status("reading the features"):
                dataset = self.dataset.open()
                data = read_data(dataset, FeatureCache.open(self.features), recipe.train_ratio)
            with rated_bar("steps", console=console) as progress:
                result = fit_data(
                    recipe,
                    data,
                    self.out,
                    device=device,
                    overwrite=self.overwrite,
                    tensorboard=not self.no_tensorboard,
                    progress=progress,
                )
            if not rank:
                with console.status("calibrating"):
                    calibrate_head(self.out / HEAD, data, dataset.fingerprint)
        if not rank:
            if recipe.train_ratio < 1:
                print(f"trained on {dataset.describe_ratio(recipe.train_ratio)}")
            _print(result, self.out, OutputConsole(highlight=False, soft_wrap=True))
        return 0


def _print(result: FitResult, out: Path, console: OutputConsole) -> None:
    from rich.table import Table

    from ovavel.training.fit.report import MEASURES, score_cells, selection

    data = result.data
    table = Table(title=f"recipe {result.recipe.name}, seed {result.recipe.seed}, epoch {result.chosen} (%)")
    table.add_column("split")
    for part in ("seen", "unseen", "total"):
        table.add_column(f"{part}\n{' / '.join(MEASURES)}", justify="right", no_wrap=True)
    for split, scores, clips in (("val", result.best.val, data.val), ("test", result.best.test, data.test)):
        if scores and clips:
            table.add_row(f"{split}\n{clips.summary}", *score_cells(scores))
    console.print(table)
    console.print(f"Trained on {data.train.summary}. {selection(result)}")
    console.print(one_line(f"{out / 'head.safetensors'}; curves: {out / 'report.html'}"), markup=False)
