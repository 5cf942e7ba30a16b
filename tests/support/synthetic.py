"""A made-up dataset of embeddings: a direction for each class, noise around it, and what makes the task a task."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ovavel.eval.datasets.audio_passes import PassReader, ShardPasses
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.train import fit_data

DIM, SEEN, UNSEEN, SEGMENTS = 32, 6, 3, 10
PASSES = 2
CLASSES = SEEN + UNSEEN + 1


def unit(x: NDArray[np.floating]) -> NDArray[np.float32]:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def make_data(*, train: int = 192, val: int = 96, test: int | None = 96, seed: int = 0, dim: int = DIM) -> Data:
    """Clips hold one event for a run of segments; elsewhere one sense, both or none are of the class.

    What is heard or seen of no class lies near a direction of its own, which the name of the background is far from:
    that is what training can learn.
    """
    g = np.random.default_rng(seed)
    text = unit(g.standard_normal((CLASSES, dim)))
    nothing = unit(g.standard_normal((2, dim)))

    def part(clips: int, classes: int, background: int) -> Part:
        category = g.integers(0, classes, clips)
        start, length = g.integers(0, 6, clips), g.integers(3, 11, clips)
        second = np.arange(SEGMENTS)
        event = (second >= start[:, None]) & (second < (start + length)[:, None])
        event &= (g.random(clips) > 0.2)[:, None]
        alone = (g.random((clips, SEGMENTS)) < 0.3) & (g.random(clips) < 0.5)[
            :, None
        ]  # of one sense, which is no event
        which = g.integers(0, 2, (clips, SEGMENTS))
        senses = []
        for sense in range(2):
            on = event | (alone & (which == sense))
            mean = np.where(on[..., None], text[category][:, None], nothing[sense])
            senses.append(unit(mean + 0.9 / np.sqrt(dim) * g.standard_normal((clips, SEGMENTS, dim))))
        return Part(
            audio=senses[0],
            vision=senses[1],
            truth=np.where(event, category[:, None], background),
            seen=category < SEEN,
        )

    trained = part(train, SEEN, SEEN)
    noise = 0.2 * np.random.default_rng(seed).standard_normal((train, PASSES, SEGMENTS, dim))
    noisy = unit(trained.audio[:, np.newaxis] + noise / np.sqrt(dim))
    return Data(
        train=replace(trained, passes=PassReader(PASSES, [ShardPasses(lambda: noisy, *[np.arange(train)] * 2)])),
        val=part(val, CLASSES - 1, CLASSES - 1),
        test=part(test, CLASSES - 1, CLASSES - 1) if test else None,
        names=(*(f"class {index}" for index in range(CLASSES - 1)), "other"),
        text=TextEmbeddings.shared(text),
        train_text=TextEmbeddings.shared(np.concatenate([text[:SEEN], text[-1:]])),
        fingerprint=f"{seed} {train} {val} {test} {dim}",
    )


def train(recipe: Recipe, out: Path, steps: Connection) -> None:
    """Train in a process of its own, sending each step."""
    torch.set_num_threads(1)
    with steps:
        fit_data(recipe, make_data(), out, progress=lambda _what, done, *_: steps.send(done))
