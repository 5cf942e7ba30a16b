"""AV²A: thresholds for each class that move with the picture (docs/method.md, Decision rules).

Shapes: N clips or buffers, T seconds, C classes with the background last, D embedding size of vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.rules.evidence import Evidence, decided_scores

__all__ = ["State", "av2a", "label_shift", "step"]

_TINY = 1e-12
_RIDGE = 1.0
"""λ of the label shift."""


class State(NamedTuple):
    """What is carried from one second to the next."""

    threshold: NDArray[np.float64]
    """(N, C): what a probability has to exceed in the coming second."""
    accepted: NDArray[np.intp]
    """(N, C): seconds in which the class was accepted so far."""


def av2a(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:
    """Decide for the most probable class among those whose runs hold: (..., T, C) scores."""
    assert evidence.frames is not None, "the registry says that it needs the frames"
    *leading, seconds, classes = evidence.audio.shape
    weight = parameters["alpha"]
    senses = ((1 - weight, evidence.vision), (weight, evidence.audio))
    probability = sum(w * _probability(s.reshape(-1, seconds, classes)) for w, s in senses)
    assert isinstance(probability, np.ndarray)
    frames = evidence.frames.reshape(len(probability), seconds, -1)
    accepted = _accepted(probability, _continuity(frames), parameters)
    accepted &= (probability.mean(axis=1) > parameters["filter"])[:, None]
    held = _runs_that_hold(accepted, probability, parameters["check"])
    best = np.where(held, probability, -1).argmax(axis=-1)
    labels = np.where(held.any(axis=-1), best, classes - 1)
    shape = (*leading, seconds)
    return decided_scores(labels.reshape(shape), probability.reshape(*shape, classes))


def step(
    state: State,
    before: NDArray[np.float64],
    following: NDArray[np.float64],
    alike: NDArray[np.float64],
    parameters: Mapping[str, float],
) -> State:
    """Accept the newest second and move the thresholds for the following one.

    Args:
        state: up to the second before.
        before: (N, t, C) probabilities of the seconds so far, the newest one last.
        following: (N, C) probabilities of the following second.
        alike: (N,) cosine of the newest frame and the following one.
        parameters: of the rule.
    """
    accepted = state.accepted + (before[:, -1] > state.threshold)
    step_size = parameters["start"] * np.exp(-parameters["decay"] * accepted)
    moved = step_size * alike[:, None] * label_shift(before, following)
    return State(threshold=state.threshold - moved, accepted=accepted)


def label_shift(before: NDArray[np.float64], following: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, C): w = (CᵀC + λI)⁻¹ Cᵀ μ ⊙ μ with C = mean of p pᵀ over (N, t, C) `before`, and μ (N, C) `following`.

    C has a rank of at most t, so the system is solved for t unknowns in the place of one for each class.
    """
    seconds = before.shape[1]
    gram = before @ before.transpose(0, 2, 1) / seconds
    right = np.einsum("ntc,nc->nt", before, following) / seconds
    weights = np.linalg.solve(gram @ gram + _RIDGE * np.eye(seconds), right[..., None])[..., 0]
    shifted: NDArray[np.float64] = np.einsum("nt,ntc->nc", weights, before) * following
    return shifted


def _accepted(
    probability: NDArray[np.float64], alike: NDArray[np.float64], parameters: Mapping[str, float]
) -> NDArray[np.bool_]:
    """(N, T, C): whether a class exceeds its threshold of the second; `alike`: (N, T - 1)."""
    clips, seconds, classes = probability.shape
    accepted = np.zeros(probability.shape, np.bool_)
    state = State(np.full((clips, classes), parameters["start"]), np.zeros((clips, classes), np.intp))
    for t in range(seconds):
        accepted[:, t] = probability[:, t] > state.threshold
        if t + 1 < seconds:
            state = step(state, probability[:, : t + 1], probability[:, t + 1], alike[:, t], parameters)
    return accepted


def _runs_that_hold(accepted: NDArray[np.bool_], probability: NDArray[np.float64], check: float) -> NDArray[np.bool_]:
    """(N, T, C): the accepted seconds whose run is longer than one and whose mean probability exceeds `check`."""
    begins = accepted & ~np.pad(accepted, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    number = np.where(accepted, begins.cumsum(axis=1), 0)
    held = np.zeros_like(accepted)
    for run in range(1, int(number.max(initial=0)) + 1):
        inside = number == run
        length = inside.sum(axis=1)
        mean = np.where(inside, probability, 0).sum(axis=1) / np.maximum(length, 1)
        held |= inside & ((length > 1) & (mean > check))[:, None]
    return held


def _probability(similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sigmoid of the similarities (..., C) in deviations from their mean over the classes."""
    values = similarity.astype(np.float64)
    away = values - values.mean(axis=-1, keepdims=True)
    z = away / np.maximum(values.std(axis=-1, keepdims=True), _TINY)
    sigmoid: NDArray[np.float64] = 1 / (1 + np.exp(-z))
    return sigmoid


def _continuity(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, T, D) → (N, T - 1): cosine of each frame and the following one."""
    values = frames.astype(np.float64)
    unit = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), _TINY)
    alike: NDArray[np.float64] = np.einsum("ntd,ntd->nt", unit[:, :-1], unit[:, 1:])
    return alike
