"""Two temperatures: each sense's softmax, multiplied (docs/method.md, Decision rules)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.rules.evidence import Evidence

__all__ = ["log_probabilities", "temperatures"]


def log_probabilities(evidence: Evidence, audio_temperature: float, vision_temperature: float) -> NDArray[np.float64]:
    """(..., T, C): log softmax(Sa / Ta) + log softmax(Sv / Tv), normalized over the classes.

    Weights of the two terms would change nothing that the temperatures do not: only their ratios count.
    """
    audio, vision = (
        _log_softmax(similarity.astype(np.float64) / temperature)
        for similarity, temperature in ((evidence.audio, audio_temperature), (evidence.vision, vision_temperature))
    )
    return _log_softmax(audio + vision)


def temperatures(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:
    """(..., T, C) probabilities of the classes if the senses err independently."""
    return np.exp(log_probabilities(evidence, **parameters)).astype(np.float32)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
