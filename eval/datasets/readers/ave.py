"""AVE (Tian et al., ECCV 2018): one audio-visual event a line, in whole seconds of a video of ten.

    <annotations>/Annotations.txt                       Category&VideoID&Quality&StartTime&EndTime
    <annotations>/trainSet.txt, valSet.txt, testSet.txt the same lines by split, or ids of videos
    <root>/…/<VideoID>.mp4

A video may be annotated with several classes. As in the published protocol each class of it is a clip of its own.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.datasets.dataset import Clip, LabelledEvent
from ovavel.eval.datasets.readers.lines import Line, read_bytes, read_lines
from ovavel.eval.datasets.readers.seconds import problem_of, whole_seconds
from ovavel.eval.datasets.readers.videos import BACKGROUND, VideoDataset, digest, find_folder, find_videos
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted

__all__ = ["ANNOTATIONS", "open_ave"]

ANNOTATIONS = "Annotations.txt"
_COLUMNS = ("Category", "VideoID", "Quality", "StartTime", "EndTime")
_LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}

_Key = tuple[str, str]  # video, class


def open_ave(root: Path, annotations: Path | None = None) -> VideoDataset:
    """Read the annotation files in `annotations`; without it those in `root`/annotations, or else in `root`.

    Raises:
        DatasetError: a file is missing or malformed, or the files contradict each other; it names file and line.
    """
    folder = find_folder(root, annotations, ANNOTATIONS, "AVE")
    contents = {name: read_bytes(folder / name, "AVE's file") for name in (ANNOTATIONS, *_LISTS.values())}
    events: dict[_Key, list[LabelledEvent]] = defaultdict(list)
    damage: dict[_Key, str] = {}
    for line in read_lines(folder / ANNOTATIONS, contents[ANNOTATIONS], "&", _COLUMNS):
        key = line.video(1), line.label(line.fields[0])
        event = LabelledEvent(key[1], line.seconds(3), line.seconds(4))
        if problem := problem_of(event, SEGMENTS):
            damage.setdefault(key, f"{line}: {problem}")
        events[key].append(event)
    if not events:
        raise DatasetError(f"{folder / ANNOTATIONS} holds no event")
    names = (*sorted({label for _, label in events}), BACKGROUND)
    classes: dict[str, list[str]] = defaultdict(list)
    for video, label in events:
        classes[video].append(label)
    clips: dict[_Key, Clip] = {}
    twice = set[_Key]()
    for split, file in _LISTS.items():
        for line in read_lines(folder / file, contents[file], "&", _COLUMNS, or_one=True):
            for key in _listed(line, classes):
                if key in clips:
                    twice |= {key} if clips[key].split != split else set()
                    continue
                clips[key] = _clip(split, key, events[key], damage.get(key), alone=len(classes[key[0]]) == 1)
    if not clips:
        raise DatasetError(f"{', '.join(_LISTS.values())} in {folder} name no video")
    unlisted = len(events) - len(clips)
    found = find_videos(root, set(classes))
    return VideoDataset(
        root=root,
        names=names,
        seen_names=names,
        clips=tuple(clips.values()),
        fingerprint=digest("ave", contents.items()),
        annotation_paths=tuple(folder / name for name in contents),
        videos=found.files,
        notes=(
            *((f"{unlisted} annotated clips are in none of the lists of splits",) if unlisted else ()),
            *((f"{len(twice)} clips are in several lists of splits; the first one counts",) if twice else ()),
            *found.notes,
        ),
    )


def _listed(line: Line, classes: dict[str, list[str]]) -> list[_Key]:
    alone = len(line.fields) == 1
    video = line.video(0 if alone else 1)
    if video not in classes:
        line.refuse(f"the video {quoted(video)} is not in {ANNOTATIONS}")
    if alone:
        return [(video, label) for label in classes[video]]
    label = line.label(line.fields[0])
    if label not in classes[video]:
        line.refuse(f"the video {quoted(video)} has no event of the class {quoted(label)} in {ANNOTATIONS}")
    return [(video, label)]


def _clip(split: str, key: _Key, events: list[LabelledEvent], damage: str | None, *, alone: bool) -> Clip:
    video, label = key
    seconds = {
        second for _, start_s, end_s in events if not damage for second in whole_seconds(start_s, end_s, SEGMENTS)
    }
    return Clip(
        split=split,
        name=video if alone else f"{video}&{label}",
        category=label,
        seen=True,
        labels=() if damage else tuple(int(second in seconds) for second in range(SEGMENTS)),
        label_damage=("label unreadable", damage) if damage else None,
        video=video,
    )
