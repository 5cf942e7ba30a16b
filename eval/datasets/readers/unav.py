"""UnAV-100 (Geng et al., CVPR 2023): untrimmed videos whose events may overlap, as windows of ten seconds.

<annotations>/unav100_annotations.json   {"database": {id: {duration, subset, annotations: [{segment, label}]}}}
<root>/…/<id>.mp4
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.datasets.dataset import Clip, LabelledEvent, Recording
from ovavel.eval.datasets.readers.lines import read_bytes
from ovavel.eval.datasets.readers.seconds import held_in, longest, problem_of, window_starts
from ovavel.eval.datasets.readers.videos import BACKGROUND, VideoDataset, digest, find_folder, find_videos
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.untrusted import read_json

__all__ = ["ANNOTATIONS", "open_unav"]

ANNOTATIONS = "unav100_annotations.json"
_SUBSETS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
_LONGEST_S = 24 * 3600.0


class _Event(Struct):
    segment: tuple[float, float]
    label: str


class _Video(Struct):
    duration: float
    subset: str
    annotations: list[_Event]


class _File(Struct):
    database: dict[str, _Video]


def open_unav(root: Path, annotations: Path | None = None) -> VideoDataset:
    """Read the annotation file in `annotations`; without it the one in `root`/annotations, or else in `root`.

    Raises:
        DatasetError: the file is missing or malformed; it names the video.
    """
    folder = find_folder(root, annotations, ANNOTATIONS, "UnAV-100")
    path = folder / ANNOTATIONS
    data = read_bytes(path, "UnAV-100's annotations")
    try:
        database = read_json(data, _File).database
    except ValueError as error:
        raise DatasetError(f"{path} is not UnAV-100's JSON: {error}; download it again") from error
    if not database:
        raise DatasetError(f"{path} holds no video")
    labels = {event.label for video in database.values() for event in video.annotations}
    for label in labels:
        if not label.strip() or not label.isprintable() or label == BACKGROUND:
            raise DatasetError(f"{path}: {quoted(label)} is not the name of a class")
    names = (*sorted(labels), BACKGROUND)
    recordings = {name: _recording(path, name, video) for name, video in database.items()}
    clips = [clip for name, each in recordings.items() for clip in _clips(path, name, each)]
    found = find_videos(root, set(database))
    return VideoDataset(
        root=root,
        names=names,
        seen_names=names,
        clips=tuple(clips),
        fingerprint=digest("unav", [(ANNOTATIONS, data)]),
        annotation_paths=(path,),
        videos=found.files,
        recordings=recordings,
        notes=found.notes,
    )


def _recording(path: Path, name: str, video: _Video) -> Recording:
    if not name or name.startswith(".") or {*"/\\\0"} & set(name):
        raise DatasetError(f"{path}: {quoted(name)} is not a valid video (and file) name")
    if video.subset.lower() not in _SUBSETS:
        raise DatasetError(f"{path}: {name}: the subset is {quoted(video.subset)}, not one of {', '.join(_SUBSETS)}")
    if not 0 < video.duration <= _LONGEST_S:
        raise DatasetError(f"{path}: {name}: a duration of {video.duration:g} s is impossible")
    events = (LabelledEvent(each.label, *each.segment) for each in video.annotations)
    return Recording(split=_SUBSETS[video.subset.lower()], duration_s=video.duration, events=tuple(events))


def _clips(path: Path, name: str, recording: Recording) -> list[Clip]:
    problem = next(filter(None, (problem_of(event, recording.duration_s) for event in recording.events)), "")
    held = () if problem else held_in(recording.events, max(recording.seconds, SEGMENTS))
    clips = []
    for start_s in window_starts(recording.seconds):
        mine = held[start_s : start_s + SEGMENTS]
        clips.append(
            Clip(
                split=recording.split,
                name=f"{name}@{start_s}",
                category=longest(mine, BACKGROUND),
                seen=True,
                labels=tuple(int(bool(each)) for each in mine),
                classes=mine,
                label_damage=("label unreadable", f"{path}: {name}: {problem}") if problem else None,
                video=name,
                start_s=start_s,
            )
        )
    return clips
