"""Similarities, streams and fitted parameters for the tests of decision rules.

Shapes: C classes with the background last, T seconds, D embedding size.
"""

from __future__ import annotations

import numpy as np

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.types import Segment

__all__ = ["FITTED", "NAMES", "TEXT", "C", "D", "T", "made", "rule", "segments", "vocabulary"]

C, T, D = 6, 10, 8
NAMES = ("bell", "car", "dog", "drum", "frog", "other")
FITTED: dict[str, dict[str, float]] = {
    "cuerator": {f"theta{i}": value for i, value in enumerate((0.1, 0.3, 0.2, 0.1, 0.4, 0.05, 0.2, 0.5, 0.3, 0.2))},
    "temperatures": {"audio_temperature": 0.05, "vision_temperature": 0.2},
    "clip-prior": {"delta": 0.1},
}
TEXT = TextEmbeddings.shared(np.eye(C, D, dtype=np.float32))


def rule(kind: str, **more: object) -> Rule:
    """The rule `kind` with parameters that let it find events in what `made` makes."""
    return Rule(kind=kind, parameters=FITTED.get(kind, {}), **more)  # type: ignore[arg-type]


def made(seed: int, clips: int = 3, seconds: int = T) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities in which one class a clip is often strong in both senses, and frames that change slowly."""
    random = np.random.default_rng(seed)
    audio, vision = random.normal(0.1, 0.1, (2, clips, seconds, C)).astype(np.float32)
    for clip in range(clips):
        event, label = random.random(seconds) < 0.6, random.integers(C)
        audio[clip, event, label] += 0.5
        vision[clip, event, label] += 0.4
    frames = np.cumsum(random.normal(0, 0.3, (clips, seconds, D)), axis=1) + random.normal(0, 1, (clips, 1, D))
    return audio, vision, frames.astype(np.float32)


def vocabulary() -> Vocabulary:
    """The C names."""
    return Vocabulary(names=NAMES, embeddings=TEXT)


def segments(seed: int, count: int) -> list[Segment]:
    """A stream in which one event after the other is seen and heard, for two to four seconds."""
    random = np.random.default_rng(seed)
    found: list[Segment] = []
    while len(found) < count:
        label = random.integers(C)
        for _ in range(random.integers(2, 5)):
            rows = TEXT.vision[label] + random.normal(0, 0.25, (2, D))
            vision, audio = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            found.append(Segment(index=len(found), start_s=float(len(found)), vision=vision, audio=audio))
    return found[:count]
