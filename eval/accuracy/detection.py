"""Events of whole recordings, found in the scores of their windows, and their mAP (docs/data.md, mAP at temporal IoU).

Shapes: N clips, T segments per clip (ten), C classes with the background last, S seconds of a recording, E events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ovavel.eval.accuracy.average_precision import THRESHOLDS, Events, average_precisions
from ovavel.eval.datasets.clip_media import SEGMENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip, Dataset, Recording

__all__ = ["SHOWN", "Detection", "MeanAP", "detect", "found_events"]

SHOWN = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds that UnAV-100's tables show, beside the mean over all of `THRESHOLDS`."""


class MeanAP(NamedTuple):
    """mAP of one protocol or rule, each in [0, 1]."""

    at: Mapping[float, float]
    """Threshold of temporal IoU → mean of AP over the classes that have a true event."""
    average: float
    """Mean over all thresholds."""
    classes: Mapping[str, float]
    """Class → mean of its AP over all thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detection:
    """mAP over the recordings of a split."""

    recordings: int
    """Recordings that were measured: those of which every second was scored."""
    left_out: int
    """Recordings of the split that were not: some or all of their windows are damaged, or were not asked for."""
    events: int
    """True events in those that were measured."""
    results: tuple[MeanAP, ...]
    """One for each protocol or rule; none where there is no event."""

    @property
    def counted(self) -> str:
        """Numbers of recordings and events, in words."""
        lost = f"; {self.left_out} left out, with windows that were not scored" if self.left_out else ""
        return f"{self.events} events in {self.recordings} whole recordings{lost}"


class _Place(NamedTuple):
    clip: int
    start_s: int


def detect(
    dataset: Dataset, split: str, clips: Sequence[Clip], tracks: Iterable[NDArray[np.float32]]
) -> Detection | None:
    """Measure the events that are found in the recordings of `split`; None: the data set is of clips alone.

    Args:
        dataset: whose recordings and names count.
        split: "train", "val" or "test".
        clips: the N clips that were scored.
        tracks: (N, T, C) scores of each protocol or rule, see `Result.tracks`.
    """
    recordings = {name: each for name, each in dataset.recordings.items() if each.split == split}
    if not recordings:
        return None
    places: dict[str, list[_Place]] = defaultdict(list)
    for number, clip in enumerate(clips):
        places[clip.video].append(_Place(number, clip.start_s))
    whole = [name for name, each in recordings.items() if _covers(places[name], each.seconds)]
    truth = _true_events([recordings[name] for name in whole], dataset.names)
    return Detection(
        recordings=len(whole),
        left_out=len(recordings) - len(whole),
        events=len(truth.label),
        results=tuple(
            _mean_ap(_proposals(whole, recordings, places, scores), truth, dataset.names)
            for scores in (tracks if len(truth.label) else ())
        ),
    )


def _covers(places: Sequence[_Place], seconds: int) -> bool:
    """Whether ten-second windows from these places hold every second."""
    reached = 0
    for start_s in sorted(place.start_s for place in places):
        if start_s > reached:
            return False
        reached = start_s + SEGMENTS
    return reached >= seconds


def _proposals(
    whole: Sequence[str],
    recordings: Mapping[str, Recording],
    places: Mapping[str, Sequence[_Place]],
    scores: NDArray[np.float32],
) -> Events:
    """The events of all classes in the recordings `whole`; `scores` are (N, T, C), of all clips."""
    parts = [_no_events()]
    for number, name in enumerate(whole):
        recording = recordings[name]
        length = max(recording.seconds, *(place.start_s + SEGMENTS for place in places[name]))
        total, windows = np.zeros((length, scores.shape[2])), np.zeros((length, 1))
        for clip, start_s in places[name]:
            total[start_s : start_s + SEGMENTS] += scores[clip]
            windows[start_s : start_s + SEGMENTS] += 1
        track = (total / np.maximum(windows, 1))[: recording.seconds]
        parts.append(found_events(track, number, recording.duration_s))
    return _joined(parts)


def found_events(scores: NDArray[np.floating], recording: int, duration_s: float) -> Events:
    """Find the events of one recording, for each class by itself: they may overlap.

    An event lasts as long as the class scores above the background. Its score is the mean of that margin.

    Args:
        scores: (S, C) of each second.
        recording: its number, for the events.
        duration_s: end of the recording; the last second may be cut short by it.
    """
    margin = scores[:, :-1].astype(np.float64) - scores[:, -1:]
    above = np.pad(margin > 0, ((1, 1), (0, 0))).astype(np.int8)
    change = np.diff(above, axis=0).T  # (C - 1, S + 1): class by class, so that starts and ends are in one order
    label, start = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)
    total = np.pad(margin.cumsum(axis=0), ((1, 0), (0, 0)))
    return Events(
        recording=np.full(len(label), recording, np.intp),
        label=label,
        start_s=start.astype(np.float64),
        end_s=np.minimum(end, duration_s),
        score=(total[end, label] - total[start, label]) / (end - start),
    )


def _true_events(recordings: Sequence[Recording], names: Sequence[str]) -> Events:
    places = {name: place for place, name in enumerate(names)}
    rows = [
        (number, places[event.label], event.start_s, event.end_s)
        for number, each in enumerate(recordings)
        for event in each.events
    ]
    if not rows:
        return _no_events()
    recording, label, start_s, end_s = zip(*rows, strict=True)
    return Events(
        recording=np.array(recording, np.intp),
        label=np.array(label, np.intp),
        start_s=np.array(start_s, np.float64),
        end_s=np.array(end_s, np.float64),
        score=np.zeros(len(rows)),
    )


def _no_events() -> Events:
    return found_events(np.zeros((0, 1)), 0, 0.0)


def _joined(parts: Sequence[Events]) -> Events:
    return Events(
        recording=np.concatenate([each.recording for each in parts]),
        label=np.concatenate([each.label for each in parts]),
        start_s=np.concatenate([each.start_s for each in parts]),
        end_s=np.concatenate([each.end_s for each in parts]),
        score=np.concatenate([each.score for each in parts]),
    )


def _mean_ap(proposals: Events, truth: Events, names: Sequence[str]) -> MeanAP:
    found = average_precisions(proposals, truth)
    mean = np.mean(list(found.values()), axis=0)
    return MeanAP(
        at=dict(zip(THRESHOLDS, mean.tolist(), strict=True)),
        average=float(mean.mean()),
        classes={names[label]: float(each.mean()) for label, each in found.items()},
    )
