"""Agreement of decisions with the truth: the three measures of OV-AVEBench and their mean (docs/method.md, Metrics).

Shapes: N clips, T segments per clip, C classes with the background last; R rows, a row being one class of one clip
with at least one predicted or true segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import agree_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Truth

__all__ = [
    "AnyTruth",
    "Scores",
    "each_agreement",
    "each_clip",
    "mean_scores",
    "right",
    "score_agreement",
    "score_clips",
    "score_events",
]

_MATCH_IOU = 0.5
AnyTruth: TypeAlias = "NDArray[np.integer] | NDArray[np.bool_]"

_NOTHING = -1  # a segment that is in no row of the prediction


class Scores(NamedTuple):
    """Means over clips, each in [0, 1]."""

    acc: float
    """Share of segments whose predicted class is the true one; the background counts as a class."""
    seg: float
    """F score of the segments of a class, averaged over the classes of a clip."""
    eve: float
    """F score of the events of a class (runs of segments, matched where IoU ≥ 0.5), averaged likewise."""
    avg: float
    """Mean of the three."""


def score_clips(predicted: NDArray[np.integer], truth: AnyTruth, n_classes: int) -> Scores:
    """Score one class per segment.

    Args:
        predicted: (N, T) class indices in [0, n_classes).
        truth: (N, T) class indices in [0, n_classes), or (N, T, C) bool where a second may hold several classes:
            then a decision is right in Acc. if it is one of them.
        n_classes: C, with the background as the last.

    Raises:
        UsageError: the shapes differ, there is no clip, or a value is not a class index.
    """
    return mean_scores(each_clip(predicted, truth, n_classes))


def each_clip(predicted: NDArray[np.integer], truth: AnyTruth, n_classes: int) -> NDArray[np.float64]:
    """(N, 4): Acc., Seg., Eve. and Avg. of each clip by itself. Arguments and errors as in `score_clips`."""
    if truth.ndim == 3:
        (labels,) = _check({"predicted": predicted}, n_classes)
        return _each(labels, labels, _check_many(truth, labels, n_classes))
    labels, actual = _check({"predicted": predicted, "truth": truth}, n_classes)
    return _each(labels, labels, actual)


def score_agreement(
    vision_label: NDArray[np.integer], audio_label: NDArray[np.integer], truth: AnyTruth, n_classes: int
) -> Scores:
    """Score the agreement protocol of training-free localization.

    Where both senses name the same class there is an event, of the class on which they agreed first; everywhere else
    is background. If that class is the background itself, the agreeing segments are of no class in Seg. and Eve.,
    as in the published figures, but still background in Acc.

    Args:
        vision_label: (N, T) arg max class of what is seen.
        audio_label: (N, T) arg max class of what is heard.
        truth: (N, T) class indices in [0, n_classes).
        n_classes: C, with the background as the last.

    Raises:
        UsageError: the shapes differ, there is no clip, or a value is not a class index.
    """
    return mean_scores(each_agreement(vision_label, audio_label, truth, n_classes))


def each_agreement(
    vision_label: NDArray[np.integer], audio_label: NDArray[np.integer], truth: AnyTruth, n_classes: int
) -> NDArray[np.float64]:
    """(N, 4): Acc., Seg., Eve. and Avg. of each clip by itself. Arguments and errors as in `score_agreement`."""
    given = {"vision_label": vision_label, "audio_label": audio_label}
    if truth.ndim == 3:
        vision, audio = _check(given, n_classes)
        actual: Truth = _check_many(truth, vision, n_classes)
    else:
        vision, audio, actual = _check(given | {"truth": truth}, n_classes)
    labels = agree_clip(vision, audio, n_classes - 1)
    rows = np.where((vision == audio) & (labels == n_classes - 1), _NOTHING, labels)
    return _each(labels, rows, actual)


def score_events(predicted: NDArray[np.bool_], truth: NDArray[np.integer]) -> float:
    """Eve. of events that may overlap, in [0, 1].

    Args:
        predicted: (N, C, T) bool, the seconds of each class; the background last, as a class of its own.
        truth: (N, T) class indices in [0, C).

    Raises:
        UsageError: the shapes do not fit together, there is no clip, or a value is not a class index.
    """
    clips, classes, _ = predicted.shape
    (actual,) = _check({"truth": truth}, classes)
    if predicted.shape != (len(actual), classes, actual.shape[1]):
        raise UsageError(f"events {predicted.shape} must be (clips, classes, segments) for truth {actual.shape}")
    rows: NDArray[np.bool_] = np.array(predicted.any(axis=2))
    rows[np.arange(clips)[:, None], actual] = True
    clip, label = np.nonzero(rows)
    return float(_by_clip(_event_f(predicted[clip, label], actual[clip] == label[:, None]), clip, clips).mean())


def mean_scores(each: NDArray[np.float64]) -> Scores:
    """Mean over clips of their measures (N, 4)."""
    acc, seg, eve = each[:, :3].mean(axis=0).tolist()
    return Scores(acc, seg, eve, (acc + seg + eve) / 3)


def _each(labels: NDArray[np.intp], rows: NDArray[np.intp], truth: Truth) -> NDArray[np.float64]:
    """(N, 4): score `labels` in Acc. and `rows`, which may hold `_NOTHING`, in Seg. and Eve.; all are (N, T)."""
    acc = right(labels, truth).mean(axis=1)
    clip, predicted_row, true_row = _rows(rows, truth)
    clips = len(truth)
    seg = _by_clip(_segment_f(predicted_row, true_row), clip, clips)
    eve = _by_clip(_event_f(predicted_row, true_row), clip, clips)
    return np.stack([acc, seg, eve, (acc + seg + eve) / 3], axis=1)


def right(labels: NDArray[np.intp], truth: AnyTruth) -> NDArray[np.bool_]:
    """(N, T) whether a decision is the true class, or one of those that the second holds."""
    if truth.ndim == 3:
        found: NDArray[np.bool_] = np.take_along_axis(truth, labels[..., None], axis=2)[..., 0].astype(np.bool_)
        return found
    return np.asarray(labels == truth)


def _rows(predicted: NDArray[np.intp], truth: Truth) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """(N, T) classes → clip (R,), predicted (R, T) and true (R, T) of every row that is not empty."""
    if truth.ndim == 3:
        said = predicted[..., None] == np.arange(truth.shape[2])
        clips, classes = np.nonzero((said | truth).any(axis=1))
        return clips, said[clips, :, classes], truth[clips, :, classes].astype(np.bool_)
    classes = np.stack([predicted, truth])
    most = int(classes.max()) + 1
    places = classes + most * np.arange(len(truth))[:, None]  # one number for each clip and class: quick to sort
    clip, label = np.divmod(np.unique(places[classes != _NOTHING]), most)
    return clip, predicted[clip] == label[:, None], truth[clip] == label[:, None]


def _segment_f(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(R, T) twice → (R,): F = 2 TP / (2 TP + FN + FP)."""
    matched = (predicted & truth).sum(axis=1)
    score: NDArray[np.float64] = 2 * matched / (predicted.sum(axis=1) + truth.sum(axis=1))
    return score


def _event_f(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(R, T) twice → (R,): the F score of runs of segments."""
    predicted_runs, true_runs = _runs(predicted), _runs(truth)  # (R, K, T) with K the most runs there can be
    shared = predicted_runs @ true_runs.transpose(0, 2, 1)
    predicted_length, true_length = predicted_runs.sum(axis=2), true_runs.sum(axis=2)
    union = predicted_length[:, :, None] + true_length[:, None, :] - shared
    match = shared >= _MATCH_IOU * np.maximum(union, 1)
    hits = match.any(axis=2).sum(axis=1)
    false_alarms = (predicted_length > 0).sum(axis=1) - hits
    misses = (true_length > 0).sum(axis=1) - match.any(axis=1).sum(axis=1)
    score: NDArray[np.float64] = 2 * hits / (2 * hits + misses + false_alarms)
    return score


def _runs(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(R, T) → (R, K, T): run k of each row as ones, all zeros where a row has fewer runs."""
    starts = active & ~np.pad(active, ((0, 0), (1, 0)))[:, :-1]
    number = np.where(active, starts.cumsum(axis=1), 0)
    most = (active.shape[1] + 1) // 2
    runs: NDArray[np.int64] = (number[:, None, :] == np.arange(1, most + 1)[:, None]).astype(np.int64)
    return runs


def _by_clip(row_scores: NDArray[np.float64], clip: NDArray[np.intp], clips: int) -> NDArray[np.float64]:
    """(clips,): mean over the rows of each clip. Every clip has a row, since its truth has a class."""
    mean: NDArray[np.float64] = np.bincount(clip, row_scores, clips) / np.bincount(clip, minlength=clips)
    return mean


def _check_many(truth: AnyTruth, labels: NDArray[np.intp], n_classes: int) -> NDArray[np.bool_]:
    if truth.dtype != np.bool_ or truth.shape != (*labels.shape, n_classes) or not truth.any(axis=2).all():
        raise UsageError(
            f"the truth {truth.shape} {truth.dtype} must say of each second of {labels.shape} which of {n_classes} "
            "classes it holds (bool), one at least"
        )
    return truth.astype(np.bool_)


def _check(labels: Mapping[str, AnyTruth], n_classes: int) -> list[NDArray[np.intp]]:
    arrays = {name: np.asarray(values) for name, values in labels.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    first = next(iter(shapes.values()))
    if len(first) != 2 or 0 in first or len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"labels must be arrays (clips, segments) of one shape and not empty; got {said}")
    for name, values in arrays.items():
        if not np.issubdtype(values.dtype, np.integer):
            raise UsageError(f"{name} must hold class indices, not {values.dtype}")
        if values.min() < 0 or values.max() >= n_classes:
            raise UsageError(
                f"{name} holds class {values.min() if values.min() < 0 else values.max()}; with {n_classes} classes, "
                f"indices go from 0 to {n_classes - 1}"
            )
    return [values.astype(np.intp) for values in arrays.values()]
