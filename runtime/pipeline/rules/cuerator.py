"""CueRator's rule: each sense against a threshold that the other one moves (docs/method.md, Decision rules)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.fusion import agree
from ovavel.runtime.pipeline.rules.evidence import Evidence, decided_scores

__all__ = ["cuerator", "rivalry"]


def rivalry(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """G: by how much the strongest other class exceeds each, (..., C) → (..., C); below 0 for the strongest itself."""
    if values.shape[-1] == 1:
        return -values
    second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
    strongest = values.argmax(axis=-1)[..., None]
    others = np.where(np.arange(values.shape[-1]) == strongest, second[..., None], first[..., None])
    difference: NDArray[np.floating] = others - values
    return difference


def cuerator(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:
    """Decide for the class that is above its threshold, and the best of those, in both senses: (..., T, C) scores."""
    audio, vision = (each.astype(np.float64) for each in (evidence.audio, evidence.vision))
    theta = [parameters[f"theta{i}"] for i in range(10)]
    over = {
        "audio": audio - _threshold(audio, vision, theta[:5]),
        "vision": vision - _threshold(vision, audio, theta[5:]),
    }
    background = audio.shape[-1] - 1
    audio_label, vision_label = (
        np.where((above := over[sense] > 0).any(axis=-1), np.where(above, own, -np.inf).argmax(axis=-1), background)
        for sense, own in (("audio", audio), ("vision", vision))
    )
    labels = agree(vision_label, audio_label, background)
    return decided_scores(labels, np.minimum(over["audio"], over["vision"]))


def _threshold(own: NDArray[np.float64], other: NDArray[np.float64], theta: list[float]) -> NDArray[np.float64]:
    """(..., T, C) thresholds of a sense with similarities `own`, beside those of the `other` one."""
    both = 0.5 * (own + np.minimum(own, other))
    mean = both.mean(axis=-2, keepdims=True)
    parts = (rivalry(other), rivalry(both), rivalry(mean), own - mean)
    threshold: NDArray[np.float64] = theta[0] + sum(
        weight * part for weight, part in zip(theta[1:], parts, strict=True)
    )
    return threshold
