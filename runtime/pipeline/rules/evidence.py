"""What a rule decides on, and how a decision becomes scores.

Shapes: `...` any leading dimensions, e.g. clips; T seconds of a buffer or clip, C classes with the background last, K
further texts of the background, D embedding size of vision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Background, Reference
from ovavel.runtime.errors import UsageError

__all__ = ["Evidence", "debiased", "decided_scores", "folded", "min_max"]

_BELOW = np.float32(0.999)
"""Score of the strongest class beside the decided one, at most: so the arg max is the decision."""


class Evidence(NamedTuple):
    """What both senses say."""

    audio: NDArray[np.float32]
    """(..., T, C) similarities."""
    vision: NDArray[np.float32]
    """(..., T, C) similarities."""
    frames: NDArray[np.float32] | None = None
    """(..., T, D) vision embeddings as they enter the head; None where only similarities are at hand."""


def folded(similarity: NDArray[np.float32], classes: int, background: Background | None) -> NDArray[np.float32]:
    """Make one similarity of the background and its K further texts: (..., C + K) → (..., C), C being `classes`."""
    if similarity.shape[-1] == classes:
        return similarity
    texts = similarity[..., classes - 1 :]
    if background is None or background.how == "max":
        strongest = texts.max(axis=-1)
    else:
        scaled = texts.astype(np.float64) / background.temperature
        peak = scaled.max(axis=-1, keepdims=True)
        total = np.log(np.exp(scaled - peak).sum(axis=-1)) + peak[..., 0]
        strongest = (background.temperature * total).astype(np.float32)
    return np.concatenate([similarity[..., : classes - 1], strongest[..., None]], axis=-1)


def debiased(evidence: Evidence, reference: Reference, names: Sequence[str]) -> Evidence:
    """Count deviations above the reference's mean of each class, C of them called `names`.

    Raises:
        UsageError: the reference was measured without one of them.
        ValueError: they are not C.
    """
    row = {name: i for i, name in enumerate(reference.names)}
    if missing := [name for name in names if name not in row]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"the reference statistics of the decision rule were measured without {missing[0]!r}{more}: measure them "
            "with these names (`ovavel eval calibrate --rule … --write`), remove the names, or choose another rule "
            "with --fusion"
        )
    if len(names) != evidence.audio.shape[-1]:
        raise ValueError(f"{len(names)} names and {evidence.audio.shape[-1]} similarities do not fit together")
    order = [row[name] for name in names]
    audio, vision = (
        ((similarity - np.array(mean, np.float32)[order]) / np.array(deviation, np.float32)[order]).astype(np.float32)
        for similarity, mean, deviation in (
            (evidence.audio, reference.audio_mean, reference.audio_deviation),
            (evidence.vision, reference.vision_mean, reference.vision_deviation),
        )
    )
    return evidence._replace(audio=audio, vision=vision)


def min_max(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale (..., C) to [0, 1] over the classes; all 0 where no class stands out."""
    low, high = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
    scaled = (values - low) / np.where(high > low, high - low, 1)
    return np.asarray(scaled, np.float32)


def decided_scores(labels: NDArray[np.intp], strength: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scores of a rule that names classes: 1 for the decided class, and below 1 for the others by their strength.

    Args:
        labels: (..., T) decisions.
        strength: (..., T, C) how much speaks for each class, in any unit.

    Returns:
        (..., T, C) float32 in [0, 1].
    """
    scores = _BELOW * min_max(strength)
    np.put_along_axis(scores, labels[..., None], np.float32(1), axis=-1)
    return scores
