"""The agreement rule per second: the class that both senses name (docs/method.md, Decision)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.fusion import agree, positive_score
from ovavel.runtime.pipeline.rules.evidence import Evidence, decided_scores

__all__ = ["agreement"]


def agreement(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:  # noqa: ARG001 - it has none
    """Decide for the class that both senses rate highest, and the background where they differ: (..., T, C) scores."""
    labels = agree(evidence.vision.argmax(axis=-1), evidence.audio.argmax(axis=-1), evidence.audio.shape[-1] - 1)
    return decided_scores(labels, positive_score(evidence.audio, evidence.vision))
