"""What the pictures of a recording share: which classes to show, and where a sense was missing.

Shapes: T seconds, C named classes, so C + 1 with the background; R classes shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.results.localization import Localization
from ovavel.runtime.types import WINDOW_S, Sense

__all__ = ["matrix", "missing_runs", "shown_classes"]


def shown_classes(localization: Localization, at_least: int, at_most: int) -> list[int]:
    """Choose R classes: those with events by their first start, then those that came closest, by their best score."""
    index = {label: c for c, label in enumerate(localization.info.labels[:-1])}
    eventful = dict.fromkeys(index[event.label] for event in localization.events if event.label in index)
    best = np.nan_to_num(matrix(localization, "scores", range(len(index))), nan=-1.0).max(axis=1, initial=-1.0)
    others = [int(c) for c in np.argsort(-best, kind="stable") if c not in eventful]
    return [*eventful, *others[: max(0, at_least - len(eventful))]][:at_most]


def matrix(localization: Localization, field: str, classes: list[int] | range) -> NDArray[np.float32]:
    """(R, T) float32 of "scores", "vision_similarity" or "audio_similarity"; NaN where a sense was missing."""
    seconds = []
    for scores in localization.scores:
        values: NDArray[np.float32] = getattr(scores, field)[list(classes)]
        seconds.append(np.full_like(values, np.nan) if field == "scores" and scores.missing else values)
    return np.stack(seconds, axis=1) if seconds else np.empty((len(classes), 0), np.float32)


def missing_runs(localization: Localization) -> Iterator[tuple[Sense, float, float]]:
    """Give sense, start and end in seconds of each stretch in which that sense was missing."""
    senses: tuple[Sense, ...] = ("vision", "audio")
    for sense in senses:
        numbered = (
            (scores.index - n, scores)
            for n, scores in enumerate([scores for scores in localization.scores if sense in scores.missing])
        )
        for _, run in groupby(numbered, key=lambda item: item[0]):
            seconds = [scores for _, scores in run]
            yield sense, seconds[0].start_s, seconds[-1].start_s + WINDOW_S
