"""LLP (Tian et al., ECCV 2020): what is heard and what is seen, labelled apart; an event is what is both.

    <annotations>/AVVP_eval_audio.csv, AVVP_eval_visual.csv   filename, onset, offset, event_labels; by tabs
    <annotations>/AVVP_val_pd.csv, AVVP_test_pd.csv           filename, event_labels (comma between them); by tabs
    <root>/…/<filename>.mp4, or named by the first eleven characters, the id of the video

The training videos have labels without times, so they are not among the clips.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.datasets.dataset import Clip, LabelledEvent
from ovavel.eval.datasets.readers.lines import read_bytes, read_lines
from ovavel.eval.datasets.readers.seconds import held_in, longest, problem_of
from ovavel.eval.datasets.readers.videos import BACKGROUND, VideoDataset, digest, find_folder, find_videos
from ovavel.runtime.errors import DatasetError

__all__ = ["AUDIO", "open_llp"]

AUDIO, VISUAL = "AVVP_eval_audio.csv", "AVVP_eval_visual.csv"
_LISTS = {"val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
_EVENTS = ("filename", "onset", "offset", "event_labels")
_LISTED = ("filename", "event_labels")
_NAMED = re.compile(r"(.{5,11})_[0-9]+_[0-9]+")  # id of the video, first and last second

_Events = dict[str, list[LabelledEvent]]


def open_llp(root: Path, annotations: Path | None = None) -> VideoDataset:
    """Read the annotation files in `annotations`; without it those in `root`/annotations, or else in `root`.

    Raises:
        DatasetError: a file is missing or malformed; it names file and line.
    """
    folder = find_folder(root, annotations, AUDIO, "LLP")
    contents = {name: read_bytes(folder / name, "LLP's file") for name in (AUDIO, VISUAL, *_LISTS.values())}
    damage: dict[str, str] = {}
    heard, seen = (_events(folder / name, contents[name], damage) for name in (AUDIO, VISUAL))
    labels = {event.label for events in (*heard.values(), *seen.values()) for event in events}
    listed: dict[str, str] = {}
    twice = 0
    for split, file in _LISTS.items():
        for line in read_lines(folder / file, contents[file], "\t", _LISTED):
            twice += line.video(0) in listed
            listed.setdefault(line.video(0), split)
            labels |= {line.label(label) for label in line.fields[1].split(",")}
    if not listed:
        raise DatasetError(f"{', '.join(_LISTS.values())} in {folder} name no video")
    found = find_videos(root, {*listed, *map(_id, listed)})
    names = (*sorted(labels), BACKGROUND)
    unlisted = len({*heard, *seen} - set(listed))
    return VideoDataset(
        root=root,
        names=names,
        seen_names=names,
        clips=tuple(_clip(split, name, heard, seen, damage.get(name)) for name, split in listed.items()),
        fingerprint=digest("llp", contents.items()),
        annotation_paths=tuple(folder / name for name in contents),
        videos={name: video for name in listed if (video := found.files.get(name) or found.files.get(_id(name)))},
        notes=(
            *((f"{unlisted} videos with events are neither in val nor in test",) if unlisted else ()),
            *((f"{twice} videos are listed twice; the first one counts",) if twice else ()),
            *found.notes,
        ),
    )


def _id(name: str) -> str:
    match = _NAMED.fullmatch(name)
    return match[1] if match else name


def _events(path: Path, data: bytes, damage: dict[str, str]) -> _Events:
    """The events by video; a video with one that cannot be used is noted in `damage`."""
    found: _Events = defaultdict(list)
    for line in read_lines(path, data, "\t", _EVENTS):
        video = line.video(0)
        for label in line.fields[3].split(","):
            event = LabelledEvent(line.label(label), line.seconds(1), line.seconds(2))
            if problem := problem_of(event, SEGMENTS):
                damage.setdefault(video, f"{line}: {problem}")
            found[video].append(event)
    return found


def _clip(split: str, name: str, heard: _Events, seen: _Events, damage: str | None) -> Clip:
    held: tuple[tuple[str, ...], ...] = ()
    if not damage:
        senses = (held_in(events.get(name, ()), SEGMENTS) for events in (heard, seen))
        held = tuple(tuple(label for label in a if label in v) for a, v in zip(*senses, strict=True))
    return Clip(
        split=split,
        name=name,
        category=longest(held, BACKGROUND),
        seen=True,
        labels=tuple(int(bool(each)) for each in held),
        classes=held,
        label_damage=("label unreadable", damage) if damage else None,
    )
