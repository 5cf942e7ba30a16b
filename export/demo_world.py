"""`ovavel train demo-world`: from nothing to the files of `ovavel demo`.

It is a training command, but it ends in an exported bundle, and only this layer may know both.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["DemoWorld"]

LICENCE = "made by ovavel in a made-up world, Apache-2.0: it knows nothing of the real one"


@dataclass(frozen=True, kw_only=True)
class DemoWorld:
    """Make the demo world and train its model from scratch: everything that `ovavel demo` shows.

    Example:
        ovavel train demo-world --out demo-world

    Draws single seconds of a made-up world and trains a tiny ImageBind on them; writes clips the way OV-AVEBench lies on
    disk, encodes them, trains a temporal head on the seen classes, calibrates it, exports the bundle, and films the clip
    of the demo. Takes about half an hour on two cores and 4 GB of disk. The same numbers give the same files on the same
    machine. A run that was cut goes on where it was.

    Afterwards the folder holds assets/ (bundle, clip.mp4 and truth.json), and dataset/ and features/ for experiments:
    'ovavel train table --data demo-world/dataset --features demo-world/features' compares recipes.
    """

    out: Path
    """Folder for all of it."""
    segments: int = 10_000
    """Seconds of the world that the encoders learn from."""
    steps: int = 700
    """Steps that the encoders learn for."""
    train_clips: int = 36
    """Clips per seen class to train the head on."""
    val_clips: int = 6
    """Clips per class to choose and calibrate with."""
    test_clips: int = 18
    """Clips per class to test on."""
    recipe: str = "demo"
    """How the head is trained; 'ovavel train head --help' names the recipes."""
    seed: int = 1
    """Another seed makes another world of the same kind."""
    workers: int = 2
    """Processes that draw and decode."""
    overwrite: bool = False
    """Replace the bundle, clip and truth of an earlier run in --out."""

    def run(self) -> int:
        """Make everything, or go on with it."""
        from ovavel.export.bundle import need_libraries

        if min(self.segments, self.steps, self.train_clips, self.val_clips, self.test_clips, self.workers) < 1:
            raise UsageError("the numbers of segments, steps, clips and workers must be positive")
        need_libraries()
        assets = self.out / "assets"
        if assets.exists() and not self.overwrite:
            raise UsageError(f"{assets} exists already; choose another --out, or make it anew with --overwrite")
        from rich.console import Console

        with _bars(Console(stderr=True, highlight=False)) as bars:
            tokenizer, weights = self._encoders(bars)
            head = self._head(bars, tokenizer, weights)
            self._assets(bars, assets, tokenizer, weights, head)
        print(f"{assets}: the bundle, the clip and the truth of the demo")
        return 0

    def _encoders(self, bars: Progress) -> tuple[Path, Path]:
        from ovavel.runtime.files import atomic_write
        from ovavel.runtime.vocabulary import Tokenizer
        from ovavel.training.demo.captions import demo_tokenizer
        from ovavel.training.demo.encoders import Schooling, train_encoders
        from ovavel.training.demo.segments import make_segments

        task = bars.add_task("drawing seconds of the world", total=self.segments)
        segments = make_segments(
            self.out / "segments",
            self.segments,
            self.seed,
            workers=self.workers,
            progress=lambda done: bars.update(task, completed=done),
        )
        tokenizer, weights = self.out / "tokenizer.json", self.out / "encoders.safetensors"
        atomic_write(tokenizer, demo_tokenizer())
        school = bars.add_task("training the encoders", total=self.steps)
        if weights.is_file():
            bars.update(school, completed=self.steps)
        else:
            train_encoders(
                segments,
                Tokenizer.open(tokenizer),
                weights,
                Schooling(steps=self.steps, seed=self.seed),
                progress=lambda step, loss: bars.update(
                    school, completed=step, description=f"training the encoders, loss {loss:.3f}"
                ),
            )
        return tokenizer, weights
