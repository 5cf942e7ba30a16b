"""Measure how two backends differ: embeddings, similarities, scores, decisions, events.

Shapes: N inputs, K clips, T seconds of a clip, which may differ from clip to clip, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import Scores, score_clips
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.verification.compare import EmbeddingDifferences, compare_embeddings, compare_heads

__all__ = ["Decisions", "EmbeddingFigures", "Place", "compare_decisions", "compare_graph", "event_iou"]

_TOP = 5


class Place(NamedTuple):
    """Origin of an input."""

    name: str
    """A clip, or the name of an adversarial input or of a text."""
    second: int | None = None
    """Second of the clip; None for other inputs."""

    def __str__(self) -> str:
        return self.name if self.second is None else f"{self.name}, second {self.second}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingFigures:
    """Differences of one encoder between both backends on the same N inputs."""

    graph: Graph
    places: tuple[Place, ...]
    found: EmbeddingDifferences

    @property
    def p1_cosine(self) -> float:
        """The cosine that 99 % of the inputs reach."""
        return float(np.percentile(self.found.cosine, 1))

    def worst(self, count: int) -> list[int]:
        """Return the indices of the inputs that differ most, worst first."""
        return [int(i) for i in np.lexsort((-self.found.away, self.found.cosine))[:count]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A second that the two backends decide differently."""

    place: Place
    reference: str
    candidate: str
    reference_margin: float
    """Reference's score of its own choice minus its score of the candidate's choice."""
    candidate_margin: float
    """The same with the roles exchanged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """Differences in similarities, scores and decisions over all seconds, each backend using its own embeddings."""

    seconds: int
    alike: float
    """Share of the seconds with the same best class: top-1 agreement, and the decisions."""
    top5: float
    """Mean share of the reference's five best classes that are among the candidate's five best."""
    audio_similarity: float
    """Largest difference."""
    vision_similarity: float
    """Largest difference."""
    drift: NDArray[np.float64]
    """(seconds,) largest difference of a score of each second."""
    flips: tuple[Flip, ...]
    """The seconds with different decisions, those clearest to the reference first."""
    event_iou: float
    """Mean IoU of events, see `event_iou`."""
    labelled: bool
    """Whether the truth is the dataset's; otherwise the reference's decisions stand in for it."""
    reference: Scores
    candidate: Scores


def compare_graph(
    graph: Graph, ours: NDArray[np.float32], theirs: NDArray[np.float32], places: Sequence[Place]
) -> EmbeddingFigures:
    """Compare (N, D) embeddings of two backends."""
    return EmbeddingFigures(graph=graph, places=tuple(places), found=compare_embeddings(ours, theirs))


def compare_decisions(
    ours: Sequence[HeadOutput],
    theirs: Sequence[HeadOutput],
    places: Sequence[Sequence[Place]],
    names: Sequence[str],
    truth: NDArray[np.intp] | None,
) -> Decisions:
    """Compare the outputs of two heads for K clips.

    Args:
        ours: the candidate's; arrays of (T, C).
        theirs: the reference's.
        places: T places for each clip.
        names: C names, the background last.
        truth: (K, T) class indices; None if unknown.
    """
    labels, reference_labels = ([fused_labels(_finite(output.score)) for output in side] for side in (ours, theirs))
    flips = []
    for k, where in enumerate(places):
        for t, place in enumerate(where):
            mine, its = int(labels[k][t]), int(reference_labels[k][t])
            if mine != its:
                a, b = theirs[k].score[t], ours[k].score[t]
                flips.append(
                    Flip(
                        place=place,
                        reference=names[its],
                        candidate=names[mine],
                        reference_margin=float(a[its] - a[mine]),
                        candidate_margin=float(b[mine] - b[its]),
                    )
                )
    seconds = sum(map(len, labels))
    sides = list(zip(ours, theirs, strict=True))
    heads = [compare_heads(a, b) for a, b in sides]
    scored = [_score(side, truth, reference_labels, len(names)) for side in (reference_labels, labels)]
    return Decisions(
        seconds=seconds,
        alike=1 - len(flips) / seconds,
        top5=float(np.mean([share for a, b in sides for share in _shared_top(b.score, a.score)])),
        audio_similarity=max(each.audio_similarity for each in heads),
        vision_similarity=max(each.vision_similarity for each in heads),
        drift=np.concatenate(
            [np.abs(_finite(a.score).astype(np.float64) - _finite(b.score)).max(axis=1) for a, b in sides]
        ),
        flips=tuple(sorted(flips, key=lambda flip: -flip.reference_margin)),
        event_iou=event_iou(labels, reference_labels, len(names) - 1),
        labelled=truth is not None,
        reference=scored[0],
        candidate=scored[1],
    )


def event_iou(labels: Sequence[NDArray[np.intp]], reference: Sequence[NDArray[np.intp]], background: int) -> float:
    """Return the mean, over the events of both backends, of the IoU with the other's best event of that class.

    An event is a run of seconds of one class that is not the background; one without a counterpart has an IoU of 0.
    It is 1 if neither has an event.
    """
    found: list[float] = []
    for ours, theirs in zip(labels, reference, strict=True):
        sides = list(_events(ours, background)), list(_events(theirs, background))
        for mine, others in (sides, sides[::-1]):
            found += [
                max((_iou(run, other) for name, other in others if name == label), default=0.0) for label, run in mine
            ]
    return float(np.mean(found)) if found else 1.0


def _events(labels: NDArray[np.intp], background: int) -> Iterator[tuple[int, range]]:
    start = 0
    for label, run in groupby(labels.tolist()):
        end = start + len(list(run))
        if label != background:
            yield label, range(start, end)
        start = end


def _iou(a: range, b: range) -> float:
    shared = max(0, min(a.stop, b.stop) - max(a.start, b.start))
    return shared / (len(a) + len(b) - shared)


def _shared_top(a: NDArray[np.float32], b: NDArray[np.float32]) -> Iterator[float]:
    best = min(_TOP, a.shape[1])
    for one, other in zip(a, _finite(b), strict=True):
        yield len(set(np.argsort(-one)[:best]) & set(np.argsort(-other)[:best])) / best


def _score(
    labels: Sequence[NDArray[np.intp]],
    truth: NDArray[np.intp] | None,
    reference: Sequence[NDArray[np.intp]],
    classes: int,
) -> Scores:
    if truth is not None:
        return score_clips(np.stack(labels), truth, classes)
    # Pieces of recordings differ in length, so they are scored separately: the measures are means over clips.
    each = [score_clips(a[None], b[None], classes) for a, b in zip(labels, reference, strict=True)]
    return Scores(*(float(value) for value in np.mean(each, axis=0)))


def _finite(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace scores that are not finite, so that they mean background."""
    whole = np.isfinite(score).all(axis=-1, keepdims=True)
    return np.where(whole, score, np.float32(0))
