"""Events of one stream against those of another: which of them match, and how far they are apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct

__all__ = ["EventShift", "compare_events", "event_f_score"]

_MATCH_IOU = 0.5


class _Timed(Protocol):
    """An event, reported or true."""

    @property
    def label(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


class EventShift(Struct, frozen=True, kw_only=True):
    """Events with economy against those without."""

    full: int
    economy: int
    matched: int
    """Of the same label, with an IoU of at least 0.5."""
    moved: int
    """Of these, with another start or another end."""
    start_s: float
    """Mean absolute difference of the starts of those that match."""
    end_s: float


def compare_events(full: Sequence[_Timed], economy: Sequence[_Timed]) -> EventShift:
    """Match the events without economy to those with it."""
    pairs = _matches(full, economy)
    starts, ends = ([abs(getattr(a, at) - getattr(b, at)) for a, b in pairs] for at in ("start_s", "end_s"))
    return EventShift(
        full=len(full),
        economy=len(economy),
        matched=len(pairs),
        moved=sum(bool(start or end) for start, end in zip(starts, ends, strict=True)),
        start_s=float(np.mean(starts)) if starts else 0.0,
        end_s=float(np.mean(ends)) if ends else 0.0,
    )


def event_f_score(truth: Sequence[_Timed], found: Sequence[_Timed]) -> float:
    """F score of events, matched where label and half of both together agree; 1 where there are none."""
    return 2 * len(_matches(truth, found)) / (len(truth) + len(found)) if truth or found else 1.0


def _matches(one: Sequence[_Timed], other: Sequence[_Timed]) -> list[tuple[_Timed, _Timed]]:
    """Pairs of events of one label with enough IoU, each event in one pair at most."""
    waiting = defaultdict(list)
    for event in other:
        waiting[event.label].append(event)
    pairs = []
    for event in one:
        found = next((each for each in waiting[event.label] if _iou(event, each) >= _MATCH_IOU), None)
        if found is not None:
            pairs.append((event, found))
            waiting[event.label].remove(found)
    return pairs


def _iou(one: _Timed, other: _Timed) -> float:
    shared = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return max(0.0, shared) / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))
