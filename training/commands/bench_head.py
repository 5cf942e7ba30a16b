"""Times fine-tuning on random features of OV-AVEBench's size: `python -m ovavel.training.commands.bench_head`."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.types import BUFFER
from ovavel.training.commands.recipe_flags import RecipeFlags, apply_flags
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.recipes import find_recipe
from ovavel.training.fit.train import fit_data

__all__ = ["BenchHead"]


def random_data(train: int, val: int, test: int, *, dim: int, classes: int, seen: int) -> Data:
    """Make unit-norm noise with random truth; `classes` and `seen` are without the background."""
    random = default_rng(0)

    def unit(*shape: int) -> NDArray[np.float32]:
        values = random.standard_normal(shape, dtype=np.float32)
        for rows in values:  # one by one, so that it takes no second copy
            rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
        return values

    def part(clips: int, names: int) -> Part:
        return Part(
            audio=unit(clips, BUFFER, dim),
            vision=unit(clips, BUFFER, dim),
            truth=random.integers(0, names + 1, (clips, BUFFER)),
            seen=random.random(clips) < seen / names,
        )

    text = unit(classes + 1, 1, dim)[:, 0]
    return Data(
        train=part(train, seen),
        val=part(val, classes),
        test=part(test, classes) if test else None,
        names=tuple(f"class {index}" for index in range(classes + 1)),
        text=TextEmbeddings.shared(text),
        train_text=TextEmbeddings.shared(np.concatenate([text[:seen], text[-1:]])),
        fingerprint=f"random {train} {val} {test} {dim} {classes} {seen}",
    )


@dataclass(frozen=True, kw_only=True)
class BenchHead:
    """Train a head on random features and print the time and memory it took."""

    recipe: str = "paper"
    """Name of the recipe."""
    changes: RecipeFlags = None
    """Fields of the recipe to change."""
    train_clips: int = 13_182
    """Clips of the training split."""
    val_clips: int = 5_798
    """Clips to validate on after each epoch."""
    test_clips: int = 5_820
    """Clips to test on after each epoch; 0: none."""
    dim: int = 1024
    """Embedding size."""
    device: str = "cpu"
    """Where to train."""
    threads: int | None = None
    """CPU threads; PyTorch's own choice by default."""

    def run(self) -> None:
        """Train one head."""
        if self.threads:
            torch.set_num_threads(self.threads)
        recipe = apply_flags(find_recipe(self.recipe), self.changes)
        data = random_data(self.train_clips, self.val_clips, self.test_clips, dim=self.dim, classes=67, seen=46)
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        marks = [0.0]

        def mark_epochs(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:  # noqa: ARG001
            if done and total and done * recipe.epochs % total == 0:
                marks.append(time.perf_counter() - start)

        with tempfile.TemporaryDirectory() as folder:
            result = fit_data(recipe, data, Path(folder), device=self.device, progress=mark_epochs)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        print(f"recipe {recipe.name}, {len(result.epochs)} epochs of {len(data.train)} clips, embeddings of {self.dim}")
        print(f"wall {wall:.1f} s, user {user:.1f} s, system {system:.1f} s")
        print(f"epochs ended training at {', '.join(f'{mark:.1f}' for mark in marks[1:])} s")
        print(
            f"most resident memory {after.ru_maxrss / 1024:.0f} MiB, {torch.get_num_threads()} threads on {self.device}"
        )


if __name__ == "__main__":
    tyro.cli(BenchHead, config=(tyro.conf.OmitArgPrefixes,)).run()
