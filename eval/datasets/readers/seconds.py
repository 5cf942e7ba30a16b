"""Events in seconds of media, cut into whole seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.datasets.dataset import LabelledEvent

__all__ = ["held_in", "longest", "problem_of", "window_starts", "whole_seconds"]


def problem_of(event: LabelledEvent, length_s: float) -> str:
    """What keeps an event of a video of `length_s` from being used; empty if nothing does."""
    label, start_s, end_s = event
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return f"the event {label!r} has no finite start and end"
    if not 0 <= start_s < end_s:
        return (
            f"the event {label!r} goes from {start_s:g} to {end_s:g} s; it must begin at 0 or later and end after that"
        )
    if start_s >= length_s:
        return f"the event {label!r} begins at {start_s:g} s, and the video has {length_s:g} s"
    return ""


def whole_seconds(start_s: float, end_s: float, length: int) -> range:
    """The seconds of `length` that an event covers by half or more; where there is none, the one it covers most.

    An event that begins after the end is in the last second.
    """
    first, last = math.ceil(start_s - 0.5), math.floor(end_s + 0.5)
    if last <= first:
        first = math.floor((start_s + end_s) / 2)
        last = first + 1
    first, last = min(max(first, 0), length - 1), min(last, length)
    return range(first, max(last, first + 1))


def held_in(events: Iterable[LabelledEvent], length: int) -> tuple[tuple[str, ...], ...]:
    """What each of `length` seconds holds, in the order of the alphabet."""
    held: list[set[str]] = [set() for _ in range(length)]
    for label, start_s, end_s in events:
        for second in whole_seconds(start_s, end_s, length):
            held[second].add(label)
    return tuple(tuple(sorted(each)) for each in held)


def longest(held: Sequence[Sequence[str]], background: str) -> str:
    """The class that lasts longest, of equal ones the first in the alphabet; the background where there is none."""
    counts = Counter(name for second in held for name in second)
    return min(counts, key=lambda name: (-counts[name], name), default=background)


def window_starts(length: int) -> list[int]:
    """First seconds of the ten-second windows over a video of `length` seconds.

    They lie end to end; the last one ends with the video, and so may begin before the one before it ends.
    """
    starts = list(range(0, length - SEGMENTS + 1, SEGMENTS)) or [0]
    return starts if length <= starts[-1] + SEGMENTS else [*starts, length - SEGMENTS]
