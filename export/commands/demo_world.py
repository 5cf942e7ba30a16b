"""`ovavel train demo-world`: builds the files of `ovavel demo` from scratch.

It is a training command, but it ends in an exported bundle, and only this layer may know both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta, Seed

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.system.bars import Bars
    from ovavel.runtime.system.progress import Progress

__all__ = ["DemoWorld"]

ASSETS = "assets"
LICENCE = "made by ovavel in a made-up world, Apache-2.0: it knows nothing of the real one"

_NUMBERS = "world.json"
_THREADS = 2
"""Threads of PyTorch. How a sum is split among threads changes its last digits, so this is fixed."""
_ANY = ("out", "workers")
"""Options that do not affect the result."""


@dataclass(frozen=True, kw_only=True)
class DemoWorld:
    """Build the demo world and train its model from scratch: everything that `ovavel demo` shows.

    Example:
        ovavel train demo-world --out demo-world

    Draws single seconds of a made-up world and trains a tiny ImageBind on them; writes clips in OV-AVEBench's folder
    layout, encodes them, trains a temporal head on the seen classes, calibrates it, exports the bundle, and renders the
    clip of the demo. Takes about half an hour on two cores and 4 GB of disk. The same numbers give the same files on
    the same machine. An interrupted run resumes where it stopped.

    Afterwards the folder holds assets/ (bundle, clip.mp4 and truth.json), and dataset/ and features/ for experiments:
    'ovavel train table --data demo-world/dataset --features demo-world/features' compares recipes.
    """

    out: Path
    """Folder for all files."""
    segments: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """Seconds of the world that the encoders are trained on."""
    steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 700
    """Training steps of the encoders."""
    train_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 36
    """Clips per seen class to train the head on."""
    val_clips: Annotated[int, Meta(ge=0, le=1_000_000)] = 6
    """Clips per class for validation and calibration."""
    test_clips: Annotated[int, Meta(ge=0, le=1_000_000)] = 18
    """Clips per class to test on."""
    recipe: str = "demo"
    """How the head is trained; 'ovavel train head --help' lists the recipes."""
    seed: Seed = 1
    """Another seed makes another world of the same kind."""
    workers: Annotated[int, Meta(ge=1, le=MOST_WORKERS)] = 2
    """Processes that draw and decode."""

    def run(self) -> int:
        """Build everything, or resume an interrupted run."""
        from ovavel.export.bundle import need_libraries

        if min(self.segments, self.steps, self.train_clips, self.val_clips, self.test_clips, self.workers) < 1:
            raise UsageError("the numbers of segments, steps, clips and workers must be positive")
        need_libraries()
        import torch
        from rich.console import Console

        from ovavel.runtime.system.interrupt import terminated_as_interrupted
        from ovavel.training.fit.recipes import find_recipe

        find_recipe(self.recipe)  # before the work, not after it
        self._remember()
        torch.set_num_threads(_THREADS)
        with terminated_as_interrupted(), _bars(Console(stderr=True, highlight=False)) as bars:
            tokenizer, weights = self._encoders(bars)
            head = self._head(bars, tokenizer, weights)
            self._assets(bars, tokenizer, weights, head)
        print(f"{one_line(str(self.out / ASSETS))}: the bundle, the clip and the truth of the demo")
        return 0

    def _remember(self) -> None:
        """Store the numbers in the folder, and refuse to resume with others: the result would match neither."""
        import json

        from ovavel.runtime.system.files import atomic_write, output_error

        numbers = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ANY}
        path = self.out / _NUMBERS
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_bytes()) if path.is_file() else numbers
        except (OSError, ValueError, RecursionError) as error:
            raise (
                output_error(path, error)
                if isinstance(error, OSError)
                else InputError(f"{path} is damaged ({error}); choose another --out")
            ) from error
        if not isinstance(before, dict):
            raise InputError(f"{path} is damaged (it is not a JSON object); choose another --out")
        if before != numbers:
            others = ", ".join(f"{name} {before.get(name)}" for name in numbers if before.get(name) != numbers[name])
            raise UsageError(
                f"{self.out} was started with other numbers ({others}); choose another --out, or delete it"
            )
        atomic_write(path, json.dumps(numbers, indent=2).encode() + b"\n")

    def _encoders(self, bars: Bars) -> tuple[Path, Path]:
        """Draw seconds of the world and train the encoders on them; return tokenizer and weights."""
        from ovavel.runtime.bundle.vocabulary import Tokenizer
        from ovavel.runtime.system.files import atomic_write
        from ovavel.training.demo_world.captions import demo_tokenizer
        from ovavel.training.demo_world.encoders import EncoderTraining, train_encoders
        from ovavel.training.demo_world.segments import make_segments

        drawing = _row(bars, "drawing seconds of the world", self.segments)
        training = _row(bars, "training the encoders", self.steps)
        tokenizer, weights = self.out / "tokenizer.json", self.out / "encoders.safetensors"
        if weights.is_file():
            drawing("already there", self.segments, self.segments)
            training("already there", self.steps, self.steps)
            return tokenizer, weights
        segments = make_segments(
            self.out / "segments",
            self.segments,
            self.seed,
            workers=self.workers,
            progress=drawing,
        )
        atomic_write(tokenizer, demo_tokenizer())
        train_encoders(
            segments,
            Tokenizer.open(tokenizer),
            weights,
            EncoderTraining(steps=self.steps, seed=self.seed),
            progress=training,
        )
        return tokenizer, weights

    def _head(self, bars: Bars, tokenizer: Path, weights: Path) -> Path:
        """Write clips, encode them, train a head on the seen classes and calibrate it; return its checkpoint."""
        from dataclasses import replace

        from ovavel.eval.datasets.ovavebench import OVAVEBench
        from ovavel.training.demo_world.dataset import Sizes, write_dataset
        from ovavel.training.demo_world.encoders import CONFIG
        from ovavel.training.features.encoders import checkpoint_encoders
        from ovavel.training.features.extract import extract
        from ovavel.training.fit.calibrate import calibrate_head
        from ovavel.training.fit.data import read_data
        from ovavel.training.fit.recipes import find_recipe
        from ovavel.training.fit.train import fit_data

        write_dataset(
            self.out / "dataset",
            Sizes(self.train_clips, self.val_clips, self.test_clips),
            self.seed,
            workers=self.workers,
            progress=_row(bars, "writing clips"),
        )
        bench = OVAVEBench.open(self.out / "dataset")
        encoding = _row(bars, "encoding clips", len(bench.clips))
        encoders = checkpoint_encoders(weights, CONFIG, device="cpu", tokenizer=tokenizer)
        cache = extract(
            bench,
            encoders,
            self.out / "features",
            batch=4,
            workers=self.workers,
            progress=encoding,
        ).cache
        encoders.close()
        data = read_data(bench, cache)
        out = self.out / "head"
        fit_data(
            replace(find_recipe(self.recipe), seed=self.seed),
            data,
            out,
            device="cpu",
            progress=_row(bars, "training the head"),
        )
        head = out / "head.safetensors"
        calibrate_head(head, data, bench.fingerprint)
        return head

    def _assets(self, bars: Bars, tokenizer: Path, weights: Path, head: Path) -> None:
        """Export the bundle and render the clip."""
        from ovavel.eval.demo.world.kinds import BACKGROUND, KINDS
        from ovavel.export.bundle import BundleContents, write_bundle
        from ovavel.training.demo_world.encoders import CONFIG
        from ovavel.training.demo_world.film import write_film

        assets = self.out / ASSETS
        write_bundle(
            BundleContents(
                weights,
                [kind.name for kind in KINDS],
                head=head,
                config=CONFIG,
                tokenizer=tokenizer,
                background=BACKGROUND,
                licences=(LICENCE,),
            ),
            assets / "bundle",
            overwrite=(assets / "bundle").exists(),
            progress=_row(bars, "exporting", 1),
        )
        # This seed differs from those of the clips: nothing in this one was trained on.
        write_film(assets / "clip.mp4", assets / "truth.json", self.seed + 1_000)


def _row(bars: Bars, title: str, total: float | None = None) -> Progress:
    """Add a row to `bars` that shows the note it is called with."""
    task = bars.add_task(title, total=total)

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:  # noqa: ARG001
        bars.update(task, completed=done, total=total, description=f"{title}, {note}" if note else title)

    return report


def _bars(console: Console) -> Bars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ovavel.runtime.system.bars import Bars

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    return Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=False)
