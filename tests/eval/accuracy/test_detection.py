"""Events of whole recordings, from the scores of their windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.eval.accuracy.detection import SHOWN, Detection, detect, found_events
from ovavel.eval.datasets.dataset import Clip, Dataset, LabelledEvent, Recording
from ovavel.eval.datasets.readers.seconds import window_starts

NAMES = ("bell", "dog", "other")


def made(recordings: dict[str, Recording]) -> Dataset:
    clips = [
        Clip(
            split=each.split, name=f"{name}@{start}", category="other", seen=True, labels=(), video=name, start_s=start
        )
        for name, each in recordings.items()
        for start in window_starts(each.seconds)
    ]
    return Dataset(
        root=Path(),
        names=NAMES,
        seen_names=NAMES,
        clips=tuple(clips),
        fingerprint="",
        annotation_paths=(),
        recordings=recordings,
    )


def recording(duration_s: float, *events: tuple[str, float, float], split: str = "test") -> Recording:
    return Recording(split=split, duration_s=duration_s, events=tuple(LabelledEvent(*event) for event in events))


def windows_of(dataset: Dataset, clips: tuple[Clip, ...], **tracks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 10, C) windows over the (S, C) tracks of videos; seconds after the end are of the first class."""
    padded = {name: np.concatenate([track, np.tile([[1, 0, 0]], (10, 1))]) for name, track in tracks.items()}
    return np.stack([padded[clip.video][clip.start_s : clip.start_s + 10] for clip in clips]).astype(np.float32)


def perfect(each: Recording) -> NDArray[np.float32]:
    """(S, C) scores of the events, which are whole seconds; the background scores ½."""
    track = np.zeros((each.seconds, 3), np.float32)
    track[:, 2] = 0.5
    for label, start_s, end_s in each.events:
        track[int(start_s) : int(end_s), NAMES.index(label)] = 1
    return track


EVENT = st.tuples(st.sampled_from(NAMES[:2]), st.integers(0, 50), st.integers(1, 20))


@settings(deadline=None)
@given(st.integers(1, 60), st.lists(EVENT, min_size=1, max_size=4))
def test_events_across_windows_are_found_whole(seconds: int, events: list[tuple[str, int, int]]) -> None:
    held: set[tuple[str, int]] = set()
    apart = []  # of one class, with a second between them
    for label, start, length in events:
        if start + length <= seconds and not held & {(label, s) for s in range(start - 1, start + length + 1)}:
            held |= {(label, s) for s in range(start, start + length)}
            apart.append((label, float(start), float(start + length)))
    dataset = made({"v": recording(seconds, *apart)})
    found = detect(
        dataset, "test", dataset.clips, [windows_of(dataset, dataset.clips, v=perfect(dataset.recordings["v"]))]
    )
    assert found
    assert found.events == len(apart)
    assert [each.average for each in found.results] == pytest.approx([1.0] * bool(apart))


def test_events_of_two_classes_overlap_and_end_with_the_recording() -> None:
    scores = np.array([[0.9, 0.0, 0.5], [0.9, 0.7, 0.5], [0.6, 0.7, 0.5], [0.5, 1.0, 0.5]])
    found = found_events(scores, 7, 3.6)
    assert found.label.tolist() == [0, 1]
    assert found.start_s.tolist() == [0, 1]
    assert found.end_s.tolist() == [3, 3.6]
    assert found.score == pytest.approx([0.3, 0.3])
    assert found.recording.tolist() == [7, 7]


def test_true_times_are_not_rounded_to_seconds() -> None:
    dataset = made({"v": recording(9.8, ("bell", 2.5, 6.5))})
    track = np.tile(np.float32([0, 0, 0.5]), (10, 1))
    track[2:7, 0] = 1  # 2 to 7 s, an IoU of 4 / 5
    found = detect(dataset, "test", dataset.clips, [windows_of(dataset, dataset.clips, v=track)])
    assert found
    assert [found.results[0].at[threshold] for threshold in SHOWN] == [1, 1, 1, 1, 0]
    assert found.results[0].average == pytest.approx(8 / 9)
    assert found.results[0].classes == {"bell": pytest.approx(8 / 9)}


def test_seconds_in_two_windows_have_the_mean_of_both() -> None:
    dataset = made({"v": recording(15, ("bell", 0, 15))})
    assert [clip.start_s for clip in dataset.clips] == [0, 5]
    scores = np.zeros((2, 10, 3), np.float32)
    scores[0, :, 0], scores[1, :, 0] = 1.0, 0.3
    scores[..., 2] = 0.2
    found = found_events_of(dataset, scores)
    assert found.results[0].average == 1
    scores[0, 5:, 0] = 0  # both windows hold seconds 5 to 9: 0.15 on average, below the background
    split = found_events_of(dataset, scores).results[0]  # into 0 to 5 and 10 to 15 s
    assert (split.at[0.3], split.at[0.4]) == (1, 0)


def found_events_of(dataset: Dataset, scores: NDArray[np.float32]) -> Detection:
    found = detect(dataset, "test", dataset.clips, [scores])
    assert found
    return found


def test_recordings_with_a_missing_window_are_left_out_and_counted() -> None:
    recordings = {name: recording(25, ("bell", 3, 5)) for name in ("a", "b", "c")}
    recordings["d"] = recording(25, ("dog", 3, 5), split="val")
    dataset = made(recordings)
    tracks = {name: perfect(each) for name, each in recordings.items()}
    for lost in ("a@0", "a@10", "a@15"):
        clips = tuple(clip for clip in dataset.clips if clip.name not in (lost, "b@10") and clip.split == "test")
        found = detect(dataset, "test", clips, [windows_of(dataset, clips, **tracks)])
        assert found
        assert (found.recordings, found.left_out, found.events) == (1, 2, 1)
        assert "2 left out" in found.counted
        assert found.results[0].average == 1
    nothing = detect(dataset, "test", (), [np.zeros((0, 10, 3), np.float32)])
    assert nothing
    assert (nothing.recordings, nothing.left_out, nothing.results) == (0, 3, ())


def test_data_sets_of_clips_have_no_recordings() -> None:
    assert detect(made({}), "test", (), []) is None
