"""Rows without training: chance, the embeddings as they are, and those of other encoders.

Shapes: N clips, T segments per clip, D embedding size, C classes with the background last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.eval.accuracy.bootstrap import intervals
from ovavel.eval.accuracy.metrics import each_agreement, each_clip
from ovavel.eval.accuracy.protocols import score_rows, score_rows_agreement
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.pipeline.fusion import cosine_similarity
from ovavel.training.fit.data import Part
from ovavel.training.fit.decide import decide_labels
from ovavel.training.fit.report import MEASURES
from ovavel.training.fit.result import row_table
from ovavel.training.fit.table.results import Cost, Intervals, Line, Missing, drop_of, over_seeds
from ovavel.training.fit.table.suites import AGREEMENT, CHANCE, FUSED, NOTHING, WITHOUT
from ovavel.training.heads.temporal import TemporalHead

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.eval.datasets.feature_cache import FeatureCache

__all__ = ["NO_CLIP_CLAP", "clip_clap_line", "interval_of", "untrained"]

_CHANCE_DRAWS = 10
_CLIPS = 256  # at once

NO_CLIP_CLAP = Missing(
    reason="it needs embeddings of CLIP and CLAP, and none were given",
    command="ovavel train features --data DATA --weights CLIP CLAP --out FOLDER; then --features-clip-clap FOLDER",
)


def untrained(part: Part, text: TextEmbeddings) -> tuple[Line, ...]:
    """Score baselines without training: two kinds of chance, agreement with and without the background, and fusion.

    Args:
        part: clips with labels among all names.
        text: embeddings of all C names for each sense.
    """
    random, truth = default_rng(0), part.truth
    draws = (random.integers(0, len(text), truth.shape) for _ in range(_CHANCE_DRAWS))
    chance = [row_table(score_rows(labels, truth, part.seen, len(text))) for labels in draws]
    return (
        Line(name=CHANCE, mean=over_seeds(chance), drop=drop_of([over_seeds(chance)]), cost=_NOTHING),
        labels_line(NOTHING, np.full(truth.shape, len(text) - 1), part, text),
        agreement_line(AGREEMENT, part, text, published="training-free"),
        agreement_line(WITHOUT, part, text, background=False),
        labels_line(FUSED, decide_labels(TemporalHead(0), part, text), part, text),
    )


def labels_line(name: str, labels: NDArray[np.integer], part: Part, text: TextEmbeddings) -> Line:
    """Score decisions (N, T) without seeds."""
    mean = row_table(score_rows(labels, part.truth, part.seen, len(text)))
    interval = interval_of(each_clip(labels, part.truth, len(text)), part)
    return Line(name=name, mean=mean, interval=interval, drop=drop_of([mean]), cost=_NOTHING)


def agreement_line(
    name: str, part: Part, text: TextEmbeddings, *, background: bool = True, published: str | None = None
) -> Line:
    """Score the agreement protocol, with the background among the names or without it."""
    named = text if background else text[:-1]
    senses = (_arg_max(part.vision, named.vision), _arg_max(part.audio, named.audio))
    mean = row_table(score_rows_agreement(*senses, part.truth, part.seen, len(text)))
    interval = interval_of(each_agreement(*senses, part.truth, len(text)), part)
    return Line(name=name, mean=mean, interval=interval, drop=drop_of([mean]), cost=_NOTHING, published=published)


def clip_clap_line(name: str, dataset: Dataset, cache: FeatureCache) -> tuple[Line, str]:
    """Score agreement on the embeddings of a second cache; returns the row, and a sentence on what it was made from.

    Raises:
        DatasetError: the cache is of other annotations, lacks clips of the test split, or none could be read.
    """
    if cache.info.dataset_fingerprint != dataset.fingerprint:
        raise DatasetError(
            f"the feature cache {cache.path} was made with other annotations than those of {dataset.root}; make one "
            "with these, or leave --features-clip-clap out"
        )
    features = cache.load(dataset.select("test"))
    if not features.clips:
        raise DatasetError(f"no clip of the split 'test' could be read; see {cache.path} for the reasons")
    places = {each: place for place, each in enumerate(cache.names)}
    part = Part(
        audio=features.audio,
        vision=features.vision,
        truth=dataset.truth(features.clips, dataset.names),
        seen=np.array([clip.seen for clip in features.clips]),
        damaged=len(features.damaged),
    )
    line = agreement_line(name, part, cache.text[[places[each] for each in dataset.names]], published="CLIP & CLAP")
    return line, (
        f"{name}: embeddings by {cache.info.model} in {cache.info.precision} ({cache.path.name}), "
        f"{len(part)} of {len(part) + part.damaged} clips."
    )


def interval_of(each: NDArray[np.float64], part: Part) -> Intervals:
    """Return the intervals of the per-clip scores (N, 4), by part and measure."""
    measures = [measure.lower() for measure in MEASURES]
    return {
        name: ends and dict(zip(measures, zip(*ends, strict=True), strict=True))
        for name, ends in intervals(each, part.seen).items()
    }


_NOTHING = Cost(parameters=0)


def _arg_max(embeddings: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the most similar class: (N, T, D) and (C, D) → (N, T)."""
    chunks = (embeddings[start : start + _CLIPS] for start in range(0, len(embeddings), _CLIPS))
    return np.concatenate([cosine_similarity(chunk, text).argmax(axis=-1) for chunk in chunks])
