"""From two embeddings to a decision, in numpy (docs/method.md, Decision).

The same mathematics as a bundle's `head.onnx` without its temporal blocks, and what evaluation decides with.

Shapes: T segments, D embedding size, C classes with the background last; `...` any leading dimensions, e.g. clips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["agree", "agree_clip", "cosine_similarity", "fused_labels", "fused_score", "positive_score", "probabilities"]

MIN_MAX_EPSILON = 1e-8
"""Keeps min-max scaling finite where all classes score the same."""


def cosine_similarity(embeddings: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., D) embeddings and (C, D) text, of any norm → (..., C) float32 in [-1, 1]. A zero vector is like nothing.

    Raises:
        ValueError: the embedding sizes differ.
    """
    if text.ndim != 2 or embeddings.shape[-1:] != text.shape[1:]:
        raise ValueError(f"embeddings {embeddings.shape} and text {text.shape} must both end in the embedding size")
    similarity: NDArray[np.float32] = np.matmul(_unit(embeddings), _unit(text).T)
    return similarity


def fused_score(audio_similarity: NDArray[np.float32], vision_similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square root of the product of both similarities, min-max scaled over the classes.

    A negative product counts as 0; two negative similarities make a positive one, as in the published model.

    Args:
        audio_similarity: (..., C) float32.
        vision_similarity: (..., C) float32.

    Returns:
        (..., C) float32 in [0, 1]; all 0 where no class stands out.
    """
    score = np.sqrt(np.maximum(audio_similarity * vision_similarity, 0))
    low, high = (extreme(axis=-1, keepdims=True) for extreme in (score.min, score.max))
    fused: NDArray[np.float32] = (score - low) / (high - low + np.float32(MIN_MAX_EPSILON))
    return fused


def positive_score(
    audio_similarity: NDArray[np.float32], vision_similarity: NDArray[np.float32]
) -> NDArray[np.float32]:
    """As `fused_score`, but a class that one sense or both speak against scores as low as can be.

    Args:
        audio_similarity: (..., C) float32.
        vision_similarity: (..., C) float32.

    Returns:
        (..., C) float32 in [0, 1]; all 0 where no class stands out.
    """
    return fused_score(np.maximum(audio_similarity, 0), np.maximum(vision_similarity, 0))


def fused_labels(score: NDArray[np.float32], background: int | None = None) -> NDArray[np.intp]:
    """Decide on fused scores (..., C): (...) arg max classes, and the background where all scores are 0.

    No class then has a positive product of similarities, and arg max would blindly name the first one. The background
    is the last class unless its index is given.
    """
    nothing = score.shape[-1] - 1 if background is None else background
    labels: NDArray[np.intp] = np.where(score.any(axis=-1), score.argmax(axis=-1), nothing)
    return labels


def agree(vision_label: NDArray[np.integer], audio_label: NDArray[np.integer], background: int) -> NDArray[np.intp]:
    """Agreement rule per segment: the class that both senses name, and the background where they differ.

    Args:
        vision_label: (...) arg max class of what is seen.
        audio_label: (...) arg max class of what is heard.
        background: index of the background class.

    Returns:
        (...) class indices.
    """
    return np.where(vision_label == audio_label, vision_label, background).astype(np.intp)


def agree_clip(
    vision_label: NDArray[np.integer], audio_label: NDArray[np.integer], background: int
) -> NDArray[np.intp]:
    """Agreement rule for clips with one event each: all agreeing segments take the class of the first of them.

    Args:
        vision_label: (..., T) arg max class of what is seen.
        audio_label: (..., T) arg max class of what is heard.
        background: index of the background class.

    Returns:
        (..., T) class indices; a clip without agreement is all background.
    """
    agreed = vision_label == audio_label
    first = agreed.argmax(axis=-1, keepdims=True)  # 0 without agreement, where it is not used
    return np.where(agreed, np.take_along_axis(vision_label, first, axis=-1), background).astype(np.intp)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norm, np.float32(1e-12))
    return unit


def probabilities(scores: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Softmax over the classes of fused scores divided by `temperature` (docs/method.md, Calibration).

    Args:
        scores: (..., C) fused, min-max scaled scores in [0, 1].
        temperature: above 0; 1 leaves the scores as they are.

    Returns:
        (..., C) float64, each sums to 1.

    Raises:
        ValueError: the temperature is not above 0 and finite.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"a temperature must be finite and above 0, not {temperature}")
    logits = np.asarray(scores, np.float64) / temperature
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return shares
