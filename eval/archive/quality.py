"""How well an archive finds names it never knew: `python -m ovavel.eval.archive.quality --help`.

Test clips are archived, which does not depend on names. Each unseen name is then searched for, and all seconds are
ranked. Average precision is measured against the annotation, and compared with live localization where all names were
configured: there, seconds are ranked by the name's score minus that of the background.

Shapes: N clips of T seconds (ten), D embedding size, C classes with the background last, U names that were never known.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.encode import load_cached
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.readers.kinds import open_dataset
from ovavel.runtime.archive.contexts import ContextVectors
from ovavel.runtime.archive.layout import ContextSecond, model_of
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.ranking import Ranking
from ovavel.runtime.archive.search.scan import scan
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import is_pooled
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import LAG, Segment

__all__ = ["Quality", "average_precision", "main", "measure"]

_APART_S = 20
"""From the beginning of a clip to that of the next one, in the archive."""


class Quality(NamedTuple):
    """Mean average precision over U names, in [0, 1]."""

    names: tuple[str, ...]
    search: NDArray[np.float64]
    """(U,) of the search."""
    live: NDArray[np.float64]
    """(U,) of live localization with these names."""


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Mean precision at the rank of each true item; items of one score share the precision of the last of them."""
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], truth[order].cumsum()
    last = np.searchsorted(-ranked, -ranked, side="right")  # rank of the last item of the same score
    return float((right[last - 1] / last)[truth[order]].mean()) if truth.any() else float("nan")


def measure(
    bundle: Bundle,
    backend: Backend,
    audio: NDArray[np.float32],
    vision: NDArray[np.float32],
    truth: NDArray[np.intp],
    names: Sequence[str],
) -> Quality:
    """Measure on clips.

    Args:
        bundle: whose vocabulary has all names.
        backend: that runs its head.
        audio: (N, T, D), unit norm.
        vision: (N, T, D), unit norm.
        truth: (N, T) class indices in the bundle's vocabulary.
        names: U of them.
    """
    vocabulary, classes = bundle.vocabulary, [bundle.vocabulary.index(name) for name in names]
    clips, seconds = truth.shape
    rule = bundle.manifest.fusion.decides
    model = model_of(bundle, pooled=is_pooled(backend.info.precision))
    live = np.zeros((clips, seconds, len(vocabulary)), np.float32)
    with (
        tempfile.TemporaryDirectory() as folder,
        ArchiveWriter(Path(folder), "clips", model, every=6000) as writer,
    ):
        vectors = ContextVectors(backend.head, backend.encoders.sizes, lag=LAG)
        localizer = Localizer(backend.head, vocabulary, lag=LAG, rule=rule)
        for clip in range(clips):
            segments = [
                Segment(index=t, start_s=float(t), vision=vision[clip, t], audio=audio[clip, t]) for t in range(seconds)
            ]
            scored = [each for segment in segments for each in localizer.push(segment)] + localizer.flush()
            for each in scored:
                if each.final:
                    live[clip, each.index] = each.scores
            contexts = [each for segment in segments for each in vectors.push(segment)] + vectors.flush()
            for context in contexts:
                at = clip * _APART_S + context.segment
                writer.write(ContextSecond(utc_s=at, vision=context.vision, audio=context.audio))
        writer.close()
        days = Archive(Path(folder)).days()
        ranking = Ranking(phrases=vocabulary.embeddings[classes], against=vocabulary.embeddings[-1:])
        *_, last = scan(days, ranking, keep=truth.size)
        found = np.full((len(names), clips * seconds), -1, np.float32)
        for row, best in enumerate(last.best):
            time = np.array([days[day].start_s for day in best.day], np.intp) + best.row
            found[row, time // _APART_S * seconds + time % _APART_S] = best.score
    margins = (live - live[..., -1:])[..., classes].reshape(-1, len(names)).T
    right = truth.reshape(-1) == np.array(classes)[:, None]
    return Quality(
        names=tuple(names),
        search=np.array([average_precision(*each) for each in zip(found, right, strict=True)]),
        live=np.array([average_precision(*each) for each in zip(margins, right, strict=True)]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on the test clips of a data set, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "data", "features"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args(arguments)
    bundle, dataset = Bundle.open(options.bundle), open_dataset(options.data)
    clips = [clip for clip in dataset.clips if clip.split == "test"]
    features = load_cached(FeatureCache.open(options.features), dataset, bundle, clips).features
    names = sorted({clip.category for clip in features.clips if not clip.seen})
    background = len(bundle.vocabulary) - 1
    truth = np.array(
        [
            [bundle.vocabulary.index(clip.category) if label else background for label in clip.labels]
            for clip in features.clips
        ]
    )
    with closing(open_backend(bundle, graphs=("head",))) as backend:
        found = measure(bundle, backend, features.audio, features.vision, truth, names)
    for name, search, live in zip(*found, strict=True):
        print(f"{name:40} search {search:.3f}  live {live:.3f}")
    search, live = found.search.mean(), found.live.mean()
    print(f"{len(names)} names, {truth.size} seconds: mAP of search {search:.4f}, of live {live:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
