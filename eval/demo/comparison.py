"""Compare the events reported for one recording with its truth.

Shapes: T seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np

from ovavel.eval.accuracy.metrics import Scores, score_clips
from ovavel.runtime.errors import UsageError
from ovavel.runtime.results import Localization
from ovavel.runtime.types import WINDOW_S

__all__ = ["Comparison", "compare", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive seconds in which neither truth nor prediction changes."""

    start_s: float
    end_s: float
    truth: str
    """Name of the event; empty for the background."""
    reported: str
    """Name of the event; empty for the background."""
    note: str = ""

    @property
    def right(self) -> bool:
        """Whether the prediction is correct."""
        return self.truth == self.reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Truth and prediction of one recording, second by second, and how well they agree."""

    truth: tuple[str, ...]
    """(T,) names of events; empty for the background."""
    reported: tuple[str, ...]
    """(T,) names of events; empty for the background."""
    notes: tuple[str, ...]
    """(T,) remarks on each second, or empty."""
    scores: Scores
    """Scores of this recording as one video of T segments (docs/method.md, Metrics)."""
    dropped: int
    """Seconds dropped because the machine was too slow; they count as background."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all events, ordered by their first second, with those of the truth first."""
        return tuple(dict.fromkeys(label for label in (*self.truth, *self.reported) if label))

    @property
    def right_s(self) -> int:
        """Number of correct seconds."""
        return sum(truth == reported for truth, reported in zip(self.truth, self.reported, strict=True))

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The recording split wherever truth, prediction or note changes."""
        notes = self.notes or ("",) * len(self.truth)
        stretches = []
        start = 0
        for (truth, reported, note), run in groupby(zip(self.truth, self.reported, notes, strict=True)):
            end = start + len(list(run))
            stretches.append(
                Stretch(start_s=start * WINDOW_S, end_s=end * WINDOW_S, truth=truth, reported=reported, note=note)
            )
            start = end
        return tuple(stretches)


def compare(localization: Localization, truth: tuple[str, ...], notes: tuple[str, ...] = ()) -> Comparison:
    """Compare the events of `localization` with the (T,) `truth`, which is empty where nothing happens.

    A second belongs to the reported event that covers it; where two events overlap, to the one that its own decision
    names.

    Raises:
        UsageError: the recording was not decided on from beginning to end.
    """
    if len(localization.scores) != len(truth):
        raise UsageError(f"{len(localization.scores)} seconds were decided on, but the truth has {len(truth)}")
    reported = tuple(_reported(localization, second) for second in range(len(truth)))
    index = {label: number for number, label in enumerate(localization.info.labels)}
    index[""] = len(index) - 1
    predicted, actual = (np.array([[index[label] for label in labels]]) for labels in (reported, truth))
    return Comparison(
        truth=truth,
        reported=reported,
        notes=notes,
        scores=score_clips(predicted, actual, len(localization.info.labels)),
        dropped=sum(localization.dropped.values()),
    )


def _reported(localization: Localization, second: int) -> str:
    start_s = second * WINDOW_S
    covering = [event.label for event in localization.events if event.start_s <= start_s < event.end_s]
    own = localization.scores[second].label
    return own if own in covering else covering[0] if covering else ""


def to_json(comparison: Comparison) -> bytes:
    """Write scores and stretches, in UTF-8."""
    document = {
        "type": "ovavel.demo",
        "seconds": len(comparison.truth),
        "right_s": comparison.right_s,
        "dropped_s": comparison.dropped,
        "scores": comparison.scores._asdict(),
        "stretches": comparison.stretches,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
