"""Average precision of events with times, as ActivityNet and UnAV-100 measure it (docs/data.md, mAP at temporal IoU).

Of each class, proposals are taken from the highest score to the lowest. One is right if it covers a true event of its
recording with a temporal IoU at the threshold or above, and no proposal before it took that event; of several it takes
the one it covers best. AP is the mean over the true events of the highest precision at which so many were found. Equal
scores count together, so that no order of proposals matters.

Shapes: E events, P proposals and G true events of one class, K thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["THRESHOLDS", "Events", "average_precisions"]

THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
"""Of temporal IoU: 0.1 to 0.9."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Events:
    """E events of any number of recordings, in any order."""

    recording: NDArray[np.intp]
    """(E,) which recording each is in."""
    label: NDArray[np.intp]
    """(E,) class indices."""
    start_s: NDArray[np.float64]
    """(E,)"""
    end_s: NDArray[np.float64]
    """(E,) above `start_s`."""
    score: NDArray[np.float64]
    """(E,) the higher, the surer; true events have any."""

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Events:
        """Select events by mask or index."""
        return Events(
            recording=self.recording[keep],
            label=self.label[keep],
            start_s=self.start_s[keep],
            end_s=self.end_s[keep],
            score=self.score[keep],
        )

    def ordered(self) -> Events:
        """From the highest score to the lowest; equal ones by recording and time."""
        return self.only(np.lexsort((self.end_s, self.start_s, self.recording, -self.score)))


def average_precisions(proposals: Events, truth: Events) -> Mapping[int, NDArray[np.float64]]:
    """Class with a true event → (K,) average precision at each of `THRESHOLDS`, in [0, 1]."""
    return {
        int(label): _average_precision(proposals.only(proposals.label == label), truth.only(truth.label == label))
        for label in np.unique(truth.label)
    }


def _average_precision(proposals: Events, truth: Events) -> NDArray[np.float64]:
    proposals = proposals.ordered()
    if not len(proposals.score):
        return np.zeros(len(THRESHOLDS))
    ends = np.append(proposals.score[1:] != proposals.score[:-1], True)  # of runs of equal scores
    # Of two that are covered as well the earlier is taken, whatever scores the true events have.
    truth = truth.only(np.lexsort((truth.end_s, truth.start_s, truth.recording)))
    found = _right(proposals, truth).cumsum(axis=0)[ends]
    precision = found / (np.flatnonzero(ends) + 1)[:, None]
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # with as many found, or more
    total: NDArray[np.float64] = (np.diff(found, axis=0, prepend=0) * highest).sum(axis=0) / len(truth.score)
    return total


def _right(proposals: Events, truth: Events) -> NDArray[np.bool_]:
    """(P, K) whether each proposal, in their order, is right at each threshold."""
    right: NDArray[np.bool_] = np.zeros((len(proposals.score), len(THRESHOLDS)), np.bool_)
    taken: NDArray[np.bool_] = np.zeros((len(THRESHOLDS), len(truth.score)), np.bool_)
    thresholds, every = np.array(THRESHOLDS), np.arange(len(THRESHOLDS))
    of = {recording: np.flatnonzero(truth.recording == recording) for recording in np.unique(truth.recording).tolist()}
    for place in np.flatnonzero(np.isin(proposals.recording, truth.recording)).tolist():
        mine = of[int(proposals.recording[place])]
        iou = _temporal_iou(proposals.start_s[place], proposals.end_s[place], truth.start_s[mine], truth.end_s[mine])
        free = np.where(taken[:, mine], -1.0, iou)  # (K, events of the recording)
        best = free.argmax(axis=1)
        right[place] = free[every, best] >= thresholds
        taken[every[right[place]], mine[best[right[place]]]] = True
    return right


def _temporal_iou(
    start_s: float, end_s: float, starts_s: NDArray[np.float64], ends_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(G,) seconds that an event shares with each of G others, over the seconds that either covers."""
    shared = np.maximum(np.minimum(ends_s, end_s) - np.maximum(starts_s, start_s), 0.0)
    iou: NDArray[np.float64] = shared / ((ends_s - starts_s) + (end_s - start_s) - shared)
    return iou
