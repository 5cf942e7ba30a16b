"""The clip prior: one class a clip, as in OV-AVEBench (docs/method.md, Decision rules)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.fusion import positive_score
from ovavel.runtime.pipeline.rules.evidence import Evidence, decided_scores

__all__ = ["clip_prior"]


def clip_prior(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:
    """Decide for the named class with the highest sum over the clip wherever it leads the background by more than δ."""
    score = positive_score(evidence.audio, evidence.vision)
    best = score[..., :-1].sum(axis=-2, dtype=np.float64).argmax(axis=-1)[..., None]  # (..., 1)
    lead = np.take_along_axis(score, best[..., None], axis=-1)[..., 0] - score[..., -1]
    labels = np.where(lead > parameters["delta"], best, score.shape[-1] - 1)
    return decided_scores(labels.astype(np.intp), score)
