"""Inputs of evaluations: embeddings and truth of a split, and the head that decides on them.

Shapes: N clips, T segments per clip (ten), D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.dataset import Clip, Dataset, Truth
from ovavel.eval.datasets.encode import DamagedRecord, check_precision, encode_clips, load_cached, what_ran
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.readers.kinds import open_dataset
from ovavel.eval.datasets.texts import embed_texts
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.bars import rated_bar
from ovavel.runtime.system.progress import prefixed
from ovavel.runtime.verification.open import open_compared

__all__ = ["EvaluationInputs", "Split", "open_inputs", "select_clips"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """The clips of one split that could be read."""

    name: str
    clips: tuple[Clip, ...]
    audio: NDArray[np.float32]
    """(N, T, D), unit norm."""
    vision: NDArray[np.float32]
    """(N, T, D), unit norm."""
    truths: Truth
    """(N, T) class indices in the dataset's total label space; (N, T, C) bool where events may overlap."""
    damaged: tuple[DamagedRecord, ...]
    """Damaged clips of the split."""

    @property
    def truth(self) -> NDArray[np.intp]:
        """(N, T) class indices in the dataset's total label space.

        Raises:
            DatasetError: events may overlap, so that a second has no single class.
        """
        if self.truths.ndim == 3:
            raise DatasetError(
                "the events of this dataset may overlap, and this needs one class a second: take a dataset such as "
                "OV-AVEBench or AVE. Scores and lags of rules that need no fitting are measured on either"
            )
        return self.truths.astype(np.intp, copy=False)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,) whether the clip's class is a seen one."""
        return np.array([clip.seen for clip in self.clips])

    def only(self, clips: Iterable[Clip]) -> Split:
        """Return those of `clips` that are here; what is left out is not counted as damaged."""
        kept = set(clips)
        keep = np.array([clip in kept for clip in self.clips])
        return replace(
            self,
            clips=tuple(clip for clip in self.clips if clip in kept),
            audio=self.audio[keep],
            vision=self.vision[keep],
            truths=self.truths[keep],
        )

    @property
    def reasons(self) -> dict[str, str]:
        """Class/name of each damaged clip → reason."""
        return {f"{each.category}/{each.name}": f"{each.kind}: {each.message}" for each in self.damaged}

    @property
    def counted(self) -> str:
        """Number of usable and damaged clips, in words."""
        lost = f"; {len(self.damaged)} damaged" if self.damaged else ""
        return f"{self.name}: {len(self.clips)} of {len(self.clips) + len(self.damaged)} clips{lost}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationInputs:
    """A dataset and a bundle opened for it; see `open_inputs`."""

    dataset: Dataset
    bundle: Bundle
    backend: Backend
    cache: FeatureCache | None
    """Where the embeddings come from; None: from the media, through the backend."""
    text: TextEmbeddings
    """(C, D) unit norm: the dataset's names, background last."""

    @property
    def ran(self) -> str:
        """What computes the embeddings and the decisions, in a sentence."""
        return what_ran(self.backend.info, self.cache)

    def split(self, name: str, most: int | None = None) -> Split:
        """Load the clips of the split `name`, or run the encoders over their media; see `select_clips`.

        Raises:
            DatasetError: there is none that could be read, or the cache is of something else or not complete.
        """
        clips = select_clips(self.dataset, name, most)
        if self.cache:
            encoded = load_cached(self.cache, self.dataset, self.bundle, clips)
        else:
            with rated_bar("clips") as progress:
                encoded = encode_clips(self.dataset, clips, self.backend, progress=prefixed(progress, f"{name}: "))
        features = encoded.features
        return Split(
            name=name,
            clips=features.clips,
            audio=features.audio,
            vision=features.vision,
            truths=(self.dataset.truths if self.dataset.overlapping else self.dataset.truth)(features.clips),
            damaged=encoded.damaged,
        )


def select_clips(dataset: Dataset, split: str, most: int | None = None) -> tuple[Clip, ...]:
    """Return the clips of a split, or `most` of them, evenly spread; damaged ones among them.

    Raises:
        DatasetError: there is none.
    """
    clips = dataset.select(split)
    if not clips:
        raise DatasetError(f"the annotations of {dataset.root} hold no clip of the split {split}")
    count = len(clips) if most is None else min(most, len(clips))
    return tuple(clips[place * len(clips) // count] for place in range(count))


@contextmanager
def open_inputs(
    data: Path,
    bundle: Path,
    *,
    annotations: Path | None = None,
    kind: str = "ov-avebench",
    features: Path | None = None,
    any_precision: bool = False,
    signed_by: str | None = None,
    threads: int | None = None,
    **options: Any,
) -> Iterator[EvaluationInputs]:
    """Open a dataset, a bundle and, if it is given, a feature cache of its encoders; the backend is closed at the end.

    `any_precision` takes a cache of another precision than the bundle runs in. `signed_by`: see `Bundle.open`.
    `threads` and `options` are those of the backend, see `open_backend`. `kind`: see `open_dataset`.

    Many parameters: each is a flag of the commands that score a dataset, passed on as it is.

    Raises:
        DatasetError, BundleError, DeviceError, VocabularyError: what cannot be opened, and why.
    """
    from rich.console import Console

    with Console(stderr=True).status("reading annotations") as status:
        dataset = open_dataset(data, annotations, kind)
        cache = FeatureCache.open(features) if features else None
        status.update("opening the bundle")
        opened = Bundle.open(bundle, signed_by=signed_by)
        status.update("embedding the names")
        plain = cache is not None and not opened.vocabulary.prompts  # a cache holds the embeddings of bare names
        text = cache.text if cache and plain else embed_texts(opened, dataset.names, threads=threads)
        status.update("loading the backend")
        graphs: tuple[Graph, ...] = ("head",) if cache else ("vision", "audio", "head")
        running = open_compared(opened, threads=threads, graphs=graphs, **options)
    try:
        if cache and not any_precision:
            check_precision(cache, opened, running.info.engine, options.get("precision"))
        running.warm_up()
        yield EvaluationInputs(dataset=dataset, bundle=opened, backend=running, cache=cache, text=text)
    finally:
        running.close()
