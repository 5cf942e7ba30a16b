"""Seconds that are background whatever their picture shows, by what is heard alone (docs/economy.md, Sound first).

The branch of a head that hears does not look: `hears_alone` tries that. So the similarities of sound are known before
any picture is encoded, and a rule whose decision they settle needs no picture.

Shapes: T seconds, C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head, no_picture
from ovavel.runtime.pipeline.rules.apply import evidence_of
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.registry import RULES, parameters_of
from ovavel.runtime.types import BUFFER, RuleKind

__all__ = ["COSINES", "hears_alone", "is_background", "why_never", "why_not_exact"]

COSINES = (-1.001, 1.001)
"""Between these is every cosine similarity, rounding included."""
_SLACK = 1e-4
"""Lead of the background, as a share, below which rounding may decide."""

_HEARS_ALONE: WeakKeyDictionary[object, dict[str, bool]] = WeakKeyDictionary()
"""What was found, by the backend that a head belongs to and the digest of the texts."""

_Bounds = NDArray[np.float32]


def hears_alone(head: Head, text: TextEmbeddings) -> bool:
    """Whether what `head` says of sound stays the same, bit for bit, whatever it sees: tried with every length.

    Sessions on one backend try it once for the same texts.
    """
    try:
        known = _HEARS_ALONE.setdefault(getattr(head, "__self__", head), {})
    except TypeError:  # a backend of slots, or without a hash, cannot be found again
        known = {}
    digest = hashlib.sha256(text.audio.tobytes() + text.vision.tobytes()).hexdigest()
    if digest not in known:
        known[digest] = _tried_alone(head, text)
    return known[digest]


def _tried_alone(head: Head, text: TextEmbeddings) -> bool:
    draw = default_rng(0)
    for seconds in range(1, BUFFER + 1):
        audio, *visions = (
            each / np.linalg.norm(each, axis=-1, keepdims=True)
            for each in (
                draw.standard_normal((1, seconds, size)).astype(np.float32)
                for size in (text.sizes[0], text.sizes[1], text.sizes[1])
            )
        )
        visions.append(no_picture(seconds, text.sizes[1]))
        first, *others = (head(audio, vision, text).audio_similarity for vision in visions)
        if not all(np.array_equal(first, other) for other in others):
            return False
    return True


def why_never(rule: Rule) -> str:
    """Why sound can never decide alone by this rule; empty if it can."""
    info = RULES[rule.kind]
    if rule.kind in _SETTLED:
        return ""
    if info.scores is None:
        return f"the rule {rule.name} is part of the head's graph"
    return f"the rule {rule.name} decides a second by its surroundings too"


def why_not_exact(rule: Rule) -> str:
    """Why sound cannot decide alone by this rule without anything known of pictures; empty if it can."""
    if rule.kind == "published":
        return "the rule published makes a positive score of two negative similarities: no sound rules a name out"
    return why_never(rule)


def is_background(
    rule: Rule,
    similarity: NDArray[np.float32],
    names: Sequence[str],
    *,
    low: NDArray[np.float32] | float = COSINES[0],
    high: NDArray[np.float32] | float = COSINES[1],
) -> NDArray[np.bool_]:
    """Whether each second is background for every picture whose similarities are from `low` to `high`.

    Args:
        rule: that decides; one with `why_never` is never settled.
        similarity: (T, C + K) float32 similarities of what is heard.
        names: C class names.
        low: (C + K,) or a number; for all cosines it is exact, as it follows from the rule alone.
        high: likewise.

    Returns:
        (T,).
    """
    if rule.kind not in _SETTLED:
        return np.zeros(len(similarity), np.bool_)
    # Folding, debiasing and offsets keep the order of similarities, so that bounds stay bounds.
    bounds = (np.broadcast_to(np.float32(each), similarity.shape) for each in (low, high))
    pairs = [evidence_of(rule, Evidence(similarity, bound), len(names), names) for bound in bounds]
    return _SETTLED[rule.kind](pairs[0].audio, pairs[0].vision, pairs[1].vision, parameters_of(rule))


def _agreement(heard: _Bounds, low: _Bounds, high: _Bounds, _: Mapping[str, float]) -> NDArray[np.bool_]:
    """The class that is heard is the background, or another one always looks more alike."""
    best = heard.argmax(axis=-1)
    reach = np.take_along_axis(high, best[:, None], axis=-1)[:, 0]
    settled: NDArray[np.bool_] = (best == heard.shape[-1] - 1) | (low.max(axis=-1) > reach)
    return settled


def _positive(heard: _Bounds, low: _Bounds, high: _Bounds, _: Mapping[str, float]) -> NDArray[np.bool_]:
    return _no_product(*(np.maximum(each, 0) for each in (heard, low, high)))


def _published(heard: _Bounds, low: _Bounds, high: _Bounds, _: Mapping[str, float]) -> NDArray[np.bool_]:
    return _no_product(heard, low, high)


def _no_product(heard: _Bounds, low: _Bounds, high: _Bounds) -> NDArray[np.bool_]:
    """No name can have a product above 0, or each stays below the background's."""
    ends = np.sqrt(np.maximum(np.stack([heard * low, heard * high]), 0))
    strongest = ends.max(axis=0)[:, :-1].max(axis=-1, initial=0)
    background = ends.min(axis=0)[:, -1]
    settled: NDArray[np.bool_] = (strongest == 0) | (strongest < (1 - _SLACK) * background - _SLACK)
    return settled


def _temperatures(heard: _Bounds, low: _Bounds, high: _Bounds, parameters: Mapping[str, float]) -> NDArray[np.bool_]:
    """The background's sum of logits exceeds that of every name, at the least and at the most."""
    audio, vision = parameters["audio_temperature"], parameters["vision_temperature"]
    names = (heard[:, :-1] / audio + high[:, :-1] / vision).max(axis=-1, initial=-np.inf)
    settled: NDArray[np.bool_] = names < heard[:, -1] / audio + low[:, -1] / vision - _SLACK
    return settled


_SETTLED: Mapping[RuleKind, Callable[[_Bounds, _Bounds, _Bounds, Mapping[str, float]], NDArray[np.bool_]]] = {
    "agreement": _agreement,
    "positive": _positive,
    "published": _published,
    "temperatures": _temperatures,
}
