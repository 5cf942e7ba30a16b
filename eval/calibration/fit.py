"""Calibrate scores on labelled clips: a temperature for probabilities, and margins for events.

Formulas: docs/method.md, Calibration. Fit on one split and evaluate on another.

Shapes: N clips, T segments per clip (ten), C classes with the background last, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import score_events
from ovavel.eval.accuracy.protocols import fused_labels
from ovavel.runtime.bundle.calibration import Calibration, names_fingerprint
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import probabilities
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.types import WINDOW_S

__all__ = [
    "Reliability",
    "event_rows",
    "fit_calibration",
    "fit_margins",
    "fit_temperature",
    "reliability",
    "score_margins",
]

BINS = 15
"""K: bins of equal width over the probabilities."""

_COLDEST, _HOTTEST = 1e-3, 1e3
_PRECISION = 1e-6  # of the logarithm of the temperature
_MARGIN_STEPS = 20
_BATCH_SECONDS = 4096
_BRIDGE = int(EventRules().bridge_s / WINDOW_S + 1e-9)


class Bin(Struct, frozen=True, kw_only=True):
    """The decisions whose probability lies in one bin."""

    low: float
    high: float
    """Its upper end, which belongs to it."""
    decisions: int
    probability: float
    """Mean of what the decisions claim; 0 without any."""
    accuracy: float
    """Share of them that is right; 0 without any."""


class Reliability(Struct, frozen=True, kw_only=True):
    """Calibration errors of probabilities."""

    bins: tuple[Bin, ...]
    ece: float
    """Expected calibration error: mean over decisions of how far its bin's accuracy is from its claim."""
    nll: float
    """Mean negative log-likelihood of the true class."""


class _Margins(NamedTuple):
    on: float
    off: float
    eve: float


def fit_calibration(
    scores: NDArray[np.float32],
    truth: NDArray[np.integer],
    *,
    dataset: str,
    names: Sequence[str],
    background_texts: Sequence[str] = (),
    fusion: str = "published",
    held_out: tuple[NDArray[np.float32], NDArray[np.integer]] | None = None,
) -> Calibration:
    """Fit a calibration to final scores.

    Args:
        scores: (N, T, C) float32 fused scores, in [0, 1].
        truth: (N, T) class indices in [0, C).
        dataset: its fingerprint, to be kept with the result.
        names: the C class names, whose fingerprint is kept too.
        background_texts: further texts of the background that the scores were made with, likewise.
        fusion: name of the rule that made the scores.
        held_out: scores and truth to measure the calibration errors on; on what was fitted without them.

    Raises:
        UsageError: there is no clip, or the shapes do not fit together.
    """
    temperature = fit_temperature(scores, truth)
    margins = fit_margins(scores, truth)
    looked_at = held_out or (scores, truth)
    return Calibration(
        temperature=temperature,
        on=margins.on,
        off=margins.off,
        ece_before=reliability(*looked_at, temperature=1.0).ece,
        ece_after=reliability(*looked_at, temperature=temperature).ece,
        segments=truth.size,
        dataset=dataset,
        fusion=fusion,
        names=names_fingerprint(tuple(names), tuple(background_texts)),
    )


def fit_temperature(scores: NDArray[np.float32], truth: NDArray[np.integer]) -> float:
    """The temperature in [0.001, 1000] with the smallest mean negative log-likelihood of the true classes.

    That likelihood has one minimum, since it is convex in 1 / temperature: a golden-section search finds it.

    Args:
        scores: (N, T, C) float32.
        truth: (N, T) class indices.

    Raises:
        UsageError: there is no clip, or the shapes do not fit together.
    """
    _check(scores, truth)
    return math.exp(golden_section(lambda logarithm: _nll(scores, truth, math.exp(logarithm)), _PRECISION))


def golden_section(loss: Callable[[float], float], precision: float) -> float:
    """Return where `loss`, a function of the logarithm of a temperature with one minimum, is smallest.

    Temperatures are in [0.001, 1000]; the logarithm is found within `precision`.
    """
    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > precision:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return (low + high) / 2


def reliability(
    scores: NDArray[np.float32], truth: NDArray[np.integer], *, temperature: float, bins: int = BINS
) -> Reliability:
    """Compare the probability of each decision with its correctness.

    Args:
        scores: (N, T, C) float32.
        truth: (N, T) class indices.
        temperature: of the softmax.
        bins: of equal width over [0, 1].

    Raises:
        UsageError: there is no clip, or the shapes do not fit together.
        ValueError: the temperature is not above 0.
    """
    _check(scores, truth)
    labels = fused_labels(scores)
    claimed = np.concatenate(
        [
            np.take_along_axis(probabilities(part, temperature), chosen[:, None], axis=1)[:, 0]
            for part, chosen in _parts(scores, labels)
        ]
    )
    right = (labels == truth).reshape(-1)
    place = np.clip(np.ceil(claimed * bins).astype(np.intp) - 1, 0, bins - 1)
    counts, claims, hits = (np.bincount(place, weights, bins) for weights in (None, claimed, right))
    some = np.maximum(counts, 1)
    return Reliability(
        bins=tuple(
            Bin(
                low=k / bins,
                high=(k + 1) / bins,
                decisions=int(counts[k]),
                probability=float(claims[k] / some[k]),
                accuracy=float(hits[k] / some[k]),
            )
            for k in range(bins)
        ),
        ece=float(np.abs(claims - hits).sum() / len(claimed)),
        nll=_nll(scores, truth, temperature),
    )


def fit_margins(scores: NDArray[np.float32], truth: NDArray[np.integer]) -> _Margins:
    """Margins `on` and `off` of `EventRules` with the highest Eve., in steps of 0.05; the smallest where some tie.

    Margins of 0 are among them, so that no calibration scores below the published decision on what it was fitted on.

    Args:
        scores: (N, T, C) float32 final scores.
        truth: (N, T) class indices.

    Raises:
        UsageError: there is no clip, or the shapes do not fit together.
    """
    _check(scores, truth)
    labels, margins = _decisions(scores)
    best = _Margins(0.0, 0.0, -1.0)
    steps = [round(step / _MARGIN_STEPS, 9) for step in range(_MARGIN_STEPS + 1)]
    for on in steps:
        for off in (step for step in steps if step <= on):
            eve = score_events(event_rows(labels, margins, scores.shape[-1], on=on, off=off), truth)
            if eve > best.eve + 1e-12:
                best = _Margins(on, off, eve)
    return best


def score_margins(scores: NDArray[np.float32], truth: NDArray[np.integer], *, on: float, off: float) -> float:
    """Eve. of the events that `EventTracker` makes of final scores (N, T, C) with these margins, in [0, 1].

    Raises:
        UsageError: there is no clip, or the shapes do not fit together.
    """
    _check(scores, truth)
    labels, margins = _decisions(scores)
    return score_events(event_rows(labels, margins, scores.shape[-1], on=on, off=off), truth)


def event_rows(
    labels: NDArray[np.integer], margins: NDArray[np.floating], classes: int, *, on: float, off: float
) -> NDArray[np.bool_]:
    """Apply the rules of `EventTracker` to the final decisions of many clips at once.

    A test holds both to the same events. All other rules are those of `EventRules()`: pauses of a second are bridged,
    and an event may be as short as one.

    Args:
        labels: (N, T) decisions.
        margins: (N, T) how far each is above the background.
        classes: C.
        on: margin to begin an event.
        off: margin to continue it.

    Returns:
        (N, C, T) bool: the seconds of the events of each class; of the background those that no event covers.
    """
    clips, length = labels.shape
    rows = np.zeros((clips, classes, length), np.bool_)
    last = np.full((clips, classes), -length - _BRIDGE - 2)  # newest second of each class's newest event
    clip = np.arange(clips)
    for t in range(length):
        label, margin = labels[:, t], margins[:, t]
        since = t - last[clip, label]
        going_on = since <= _BRIDGE + 1
        active = (label != classes - 1) & (margin >= np.where(going_on, off, on))
        for back in range(_BRIDGE + 1):
            rows[clip, label, max(0, t - back)] |= active & ((back == 0) | (going_on & (back < since)))
        last[clip[active], label[active]] = t
    rows[:, -1] = ~rows[:, :-1].any(axis=1)
    return rows


def _decisions(scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(N, T) labels and margins of (N, T, C) scores, as `Localizer` and `SegmentScores.margin` have them."""
    labels = fused_labels(scores)
    score = np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0].astype(np.float64)
    return labels, np.maximum(score - scores[..., -1], 0)


def _nll(scores: NDArray[np.float32], truth: NDArray[np.integer], temperature: float) -> float:
    """Mean negative log-likelihood of the true classes."""
    total = 0.0
    for part, actual in _parts(scores, truth):
        logits = part.astype(np.float64) / temperature
        logits -= np.take_along_axis(logits, actual[:, None], axis=1)
        peak = logits.max(axis=1)
        total += float((peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))).sum())
    return total / truth.size


def _parts(
    scores: NDArray[np.float32], labels: NDArray[np.integer]
) -> list[tuple[NDArray[np.float32], NDArray[np.integer]]]:
    """Seconds (B, C) and their labels (B,), so many at once as fit a processor's cache."""
    flat, flat_labels = scores.reshape(-1, scores.shape[-1]), labels.reshape(-1)
    return [
        (flat[i : i + _BATCH_SECONDS], flat_labels[i : i + _BATCH_SECONDS]) for i in range(0, len(flat), _BATCH_SECONDS)
    ]


def _check(scores: NDArray[np.float32], truth: NDArray[np.integer]) -> None:
    if scores.ndim != 3 or scores.shape[:2] != truth.shape or not scores.size:
        raise UsageError(
            f"scores {scores.shape} must be (clips, segments, classes) and truth {truth.shape} (clips, segments), "
            "not empty"
        )
