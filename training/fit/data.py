"""Training and evaluation data of a head, as arrays: embeddings, names and ground truth.

Shapes: N clips, T segments per clip (ten), D embedding size, C classes with the background last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ovavel.eval.datasets.audio_passes import PassReader
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset

__all__ = ["Data", "Part", "read_data"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Clips of one split."""

    audio: NDArray[np.float32]
    """(N, T, D), unit norm."""
    vision: NDArray[np.float32]
    """(N, T, D), unit norm."""
    truth: NDArray[np.intp]
    """(N, T) class indices: into the training names in the training part, into all names elsewhere."""
    seen: NDArray[np.bool_]
    """(N,) whether the clip's class occurs in training."""
    damaged: int = 0
    """Clips of the split that could not be read and are left out."""
    passes: PassReader | None = None
    """Further passes of the N clips' sound with stochastic depth; None: there are none."""

    def __post_init__(self) -> None:
        n, t = self.truth.shape
        if (
            not n
            or self.audio.shape[:2] != self.vision.shape[:2]
            or self.audio.shape[:2] != (n, t)
            or self.seen.shape != (n,)
        ):
            raise UsageError(
                f"a part needs clips, and one label per segment: audio {self.audio.shape}, vision "
                f"{self.vision.shape}, truth {self.truth.shape}, seen {self.seen.shape}"
            )

    def __len__(self) -> int:
        return len(self.truth)

    def draw_audio(self, random: Generator) -> NDArray[np.float32]:
        """Return audio (N, T, D) of one pass of each clip, drawn with `random`; the clean one is not among them.

        Raises:
            DatasetError: a file of passes is damaged.
        """
        assert self.passes
        return self.passes.take(random.integers(self.passes.count, size=len(self)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Everything that a recipe is applied to."""

    train: Part
    val: Part
    test: Part | None
    """None: nothing is reported for the test split."""
    names: tuple[str, ...]
    """The C names in validation and test, background last."""
    text: TextEmbeddings
    """(C, D) embeddings of `names` for each sense, unit norm."""
    train_text: TextEmbeddings
    """(C', D) embeddings of the training names: the seen classes, background last."""
    fingerprint: str
    """Changes with any of the above."""


def read_data(dataset: Dataset, cache: FeatureCache, train_ratio: float = 1.0, *, test: bool = True) -> Data:
    """Read what training needs from a dataset and its feature cache.

    Args:
        dataset: the annotations.
        cache: embeddings of train, val and, with `test`, test.
        train_ratio: share of the training clips.
        test: read the test split too.

    Raises:
        DatasetError: the cache belongs to other annotations or lacks clips, or no clip of a split could be read.
        UsageError: invalid ratio.
    """
    if cache.info.dataset_fingerprint != dataset.fingerprint:
        raise DatasetError(
            f"the feature cache {cache.path} was made with other annotations than those of {dataset.root}; "
            "run `ovavel train features` with these, or choose the matching dataset"
        )
    digest = hashlib.sha256(cache.info.fingerprint.encode())

    def part(split: str, names: Sequence[str]) -> Part:
        features = cache.load(dataset.select(split, train_ratio=train_ratio))
        if not features.clips:
            raise DatasetError(f"no clip of the split {split!r} could be read; see {cache.path} for the reasons")
        digest.update("\0".join((split, *(clip.name for clip in features.clips))).encode())
        return Part(
            audio=features.audio,
            vision=features.vision,
            truth=dataset.truth(features.clips, names),
            seen=np.array([clip.seen for clip in features.clips]),
            damaged=len(features.damaged),
            passes=cache.audio_passes(features.clips),
        )

    places = {name: place for place, name in enumerate(cache.names)}
    return Data(
        train=part("train", dataset.seen_names),
        val=part("val", dataset.names),
        test=part("test", dataset.names) if test else None,
        names=dataset.names,
        text=cache.text[[places[name] for name in dataset.names]],
        train_text=cache.text[[places[name] for name in dataset.seen_names]],
        fingerprint=digest.hexdigest(),
    )
