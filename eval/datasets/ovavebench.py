"""OV-AVEBench on disk: the published annotation files, and where each clip's media lie.

    <annotations>/ovave_dataset_meta.csv                   split, class, close (seen) or open (unseen), video
    <annotations>/released_ovavel_dataset_anno.json        ten 0/1 labels of each video
    <annotations>/ovave_total_close_open_categories.csv    all classes, the background last
    <annotations>/ovave_train_close_categories.csv         the seen classes, the background last
    <annotations>/ovave_trainratio0.25_meta.csv            optional: a published choice of the training clips
    <root>/<split>/audio/<class>/<video>.wav
    <root>/<split>/video/<class>/<video>/                  exactly ten images, in name order

A damaged clip never keeps the dataset from opening: it is listed like the others, and `OVAVEBench.media` says what is
wrong with it. Anything that would make other clips mean something else does.

Shapes: N clips; T segments of a clip (10).
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np

from ovavel.eval.datasets.clip_media import SEGMENTS, ClipMedia, DamagedClip, fit, read_frames, read_sound, to_windows
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.files import not_regular
from ovavel.runtime.system.paths import check_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.types import Window

__all__ = ["SEGMENTS", "SPLITS", "Clip", "ClipMedia", "DamagedClip", "Kind", "OVAVEBench", "to_windows"]

SPLITS = ("train", "val", "test")
META = "ovave_dataset_meta.csv"
LABELS = "released_ovavel_dataset_anno.json"
TOTAL_CLASSES = "ovave_total_close_open_categories.csv"
SEEN_CLASSES = "ovave_train_close_categories.csv"
TRAIN_RATIO = "ovave_trainratio{ratio:g}_meta.csv"
PUBLISHED_RATIOS = (0.25,)

_VIDEO = re.compile(r"[^/\\\0.][^/\\\0]*")
_COLUMNS = ["split", "cls_name", "cls_type", "vid_name"]

Kind = Literal["all", "seen", "unseen"]
_Row = tuple[str, str, str, str]  # of META: split, class, "close" or "open", video


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One annotated video of ten seconds."""

    split: str
    """"train", "val" or "test"."""
    name: str
    """Id of the video."""
    category: str
    """Its class, wherever a label is 1."""
    seen: bool
    """Whether its class is among those that are trained on ("close" in the files)."""
    labels: tuple[int, ...]
    """T labels: 1 where the event is both seen and heard, else 0. Empty where `label_damage` is set."""
    label_damage: tuple[str, str] | None = None
    """Kind (one of `clip_media.KINDS`) and message, where the annotation of this clip cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OVAVEBench:
    """The annotations of OV-AVEBench, and the way to its media."""

    root: Path
    """Folder of the splits' media."""
    names: tuple[str, ...]
    """The total label space: all classes, the background last. Class indices are positions in it."""
    seen_names: tuple[str, ...]
    """The label space of training: the seen classes, the background last."""
    clips: tuple[Clip, ...]
    """All clips, in file order."""
    fingerprint: str
    """SHA-256 over the contents of all annotation files."""
    annotation_paths: tuple[Path, ...]
    """The annotation files."""
    published_choices: Mapping[float, frozenset[str]]
    """Training clips of the ratios for which there is an annotation file."""

    @classmethod
    def open(cls, root: Path | str, annotations: Path | str | None = None) -> Self:
        """Read the annotation files in `annotations`; without it those in `root`/annotations, or else in `root`.

        Raises:
            DatasetError: a file is missing or malformed, or the files contradict each other; it names file and line.
        """
        for given in (root, annotations):
            if given is not None:
                check_path(given, DatasetError)
        root = Path(root)
        folder = _find_annotations(root, annotations)
        contents = {name: _read(folder / name) for name in (META, LABELS, TOTAL_CLASSES, SEEN_CLASSES)}
        ratio_files = {ratio: folder / name for name, ratio in _ratio_files(folder)}
        contents |= {path.name: _read(path) for path in ratio_files.values()}

        names = _classes(contents[TOTAL_CLASSES], folder / TOTAL_CLASSES)
        seen_names = _classes(contents[SEEN_CLASSES], folder / SEEN_CLASSES)
        if extra := set(seen_names) - set(names):
            raise DatasetError(
                f"{folder / SEEN_CLASSES}: {quoted(min(extra))} is not among the classes of {TOTAL_CLASSES}"
            )
        if names[-1] != seen_names[-1]:
            raise DatasetError(
                f"{folder / SEEN_CLASSES}: the last line is {quoted(seen_names[-1])}, but "
                f"{quoted(names[-1])} in {TOTAL_CLASSES}; both end with the background"
            )
        rows = _rows(contents[META], folder / META, names, frozenset(seen_names))
        if not rows:
            raise DatasetError(f"{folder / META} names no clip")
        labels = _Labels(contents[LABELS], folder / LABELS)
        clips = tuple(labels.clip(row) for row in rows)
        training = frozenset(row for row in rows if row[0] == "train")
        choices = {}
        for ratio, path in ratio_files.items():
            chosen = [
                row for row in _rows(contents[path.name], path, names, frozenset(seen_names)) if row[0] == "train"
            ]
            if strange := set(chosen) - training:
                raise DatasetError(f"{path}: {min(strange)[3]} is not a training clip of {META}")
            choices[ratio] = frozenset(row[3] for row in chosen)
        digest = hashlib.sha256()
        for name in sorted(contents):
            digest.update(f"{name}\0{hashlib.sha256(contents[name]).hexdigest()}\n".encode())
        return cls(
            root=root,
            names=names,
            seen_names=seen_names,
            clips=clips,
            fingerprint=digest.hexdigest(),
            annotation_paths=tuple(folder / name for name in sorted(contents)),
            published_choices=choices,
        )

    def select(self, split: str, *, kind: Kind = "all", train_ratio: float = 1.0) -> tuple[Clip, ...]:
        """The clips of a split in file order, damaged ones included.

        `train_ratio` keeps a share of the training clips (val and test stay whole): those of the published file for
        that ratio, or else a fixed choice of our own, see `describe_ratio`.

        Raises:
            UsageError: there is no such split, kind or ratio.
            DatasetError: the ratio's clips were published, but the file is not there.
        """
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        if kind not in ("all", "seen", "unseen"):
            raise UsageError(f"there is no kind of clip {kind!r}; choose all, seen or unseen")
        clips = [
            clip for clip in self.clips if clip.split == split and (kind == "all" or clip.seen == (kind == "seen"))
        ]
        self.describe_ratio(train_ratio)  # complains of one that cannot be had
        if split != "train" or train_ratio == 1:
            return tuple(clips)
        names = self.published_choices.get(train_ratio)
        if names is None:
            names = _choose(self.clips, train_ratio)
        return tuple(clip for clip in clips if clip.name in names)

    def describe_ratio(self, train_ratio: float) -> str:
        """Which training clips `select` takes at this ratio, to be reported beside a result.

        Raises:
            UsageError: the ratio is not in (0, 1].
            DatasetError: the ratio's clips were published, but the file is not there.
        """
        if not 0 < train_ratio <= 1:
            raise UsageError(f"a train ratio of {train_ratio} makes no sense; give a number above 0, up to 1")
        if train_ratio == 1:
            return "all training clips"
        file = TRAIN_RATIO.format(ratio=train_ratio)
        if train_ratio in self.published_choices:
            return f"the training clips of {file}"
        if train_ratio in PUBLISHED_RATIOS:
            raise DatasetError(
                f"{file} is not among the annotation files; the choice of clips for this ratio was published: "
                "put the file beside the others, or choose another ratio"
            )
        return (
            f"ovavel's own fixed choice of {train_ratio:.0%} of the clips of each class, rounded up "
            f"(there is no {file}, so not the clips of the paper)"
        )

    def truth(self, clips: Sequence[Clip], names: Sequence[str] | None = None) -> NDArray[np.intp]:
        """(N, T) class indices in `names` (default: the total label space); the background is the last one.

        Raises:
            DatasetError: the annotation of a clip is damaged, or its class is not among `names`.
        """
        names = self.names if names is None else names
        places = {name: place for place, name in enumerate(names[:-1])}
        truth = np.full((len(clips), SEGMENTS), len(names) - 1, np.intp)
        for row, clip in zip(truth, clips, strict=True):
            if clip.label_damage:
                raise DatasetError(f"{clip.split}/{clip.name} has no truth: {clip.label_damage[1]}")
            if clip.category not in places:
                raise DatasetError(
                    f"{clip.split}/{clip.name} is of class {clip.category!r}, which is not among the {len(names)} names"
                )
            row[np.array(clip.labels) == 1] = places[clip.category]
        return truth

    def audio_path(self, clip: Clip) -> Path:
        """Sound of a clip."""
        return self.root / clip.split / "audio" / clip.category / f"{clip.name}.wav"

    def frames_dir(self, clip: Clip) -> Path:
        """Folder of a clip's ten frames."""
        return self.root / clip.split / "video" / clip.category / clip.name

    def media(self, clip: Clip) -> ClipMedia:
        """Read the frames and the sound of a clip.

        Raises:
            DamagedClip: its annotation, sound or frames are missing, unreadable or not as they should be.
        """
        if clip.label_damage:
            raise DamagedClip(*clip.label_damage)
        waveform = fit(read_sound(self.audio_path(clip)))
        return ClipMedia(frames=read_frames(self.frames_dir(clip)), waveform=waveform)

    def windows(self, clip: Clip) -> list[Window]:
        """The T windows of a clip.

        Raises:
            DamagedClip: as `media`.
        """
        return to_windows(self.media(clip))


class _Labels:
    """The labels file, forgiving of what concerns a single clip."""

    def __init__(self, data: bytes, path: Path) -> None:
        try:
            entries = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{path} is not valid JSON: {error}; download it again") from error
        if not isinstance(entries, dict):
            raise DatasetError(f"{path} is not a JSON object of videos")
        self._entries: dict[str, Any] = entries
        self._path = path
        self._parsed: dict[str, tuple[int, ...] | tuple[str, str]] = {}  # few different ones, each parsed once

    def clip(self, row: _Row) -> Clip:
        """The clip of a row of META."""
        split, category, kind, name = row
        labels = self._labels(name, category)
        damage: tuple[str, str] | None = None
        if labels and isinstance(labels[0], str):
            damage = (labels[0], f"{self._path}: {name}: {labels[1]}")
            labels = ()
        return Clip(
            split=split,
            name=name,
            category=category,
            seen=kind == "close",
            labels=labels,
            label_damage=damage,
        )

    def _labels(self, name: str, category: str) -> tuple[int, ...] | tuple[str, str]:
        """T labels, or kind and description of the damage."""
        entry = self._entries.get(name)
        if entry is None or (isinstance(entry, dict) and entry.get("label") is None):
            return "label missing", "there is no label"
        if not isinstance(entry, dict) or not isinstance(entry["label"], str | list):
            return "label unreadable", "the entry is not an object with a label"
        if entry.get("category", category) != category:
            return (
                "label of another class",
                f"it is labelled {quoted(entry['category'])}, but listed as {quoted(category)}",
            )
        text = entry["label"] if isinstance(entry["label"], str) else json.dumps(entry["label"])
        if text not in self._parsed:
            self._parsed[text] = _parse_label(text)
        return self._parsed[text]


def _parse_label(text: str) -> tuple[int, ...] | tuple[str, str]:
    try:
        values = msgspec.json.decode(text, type=list[int])
    except (msgspec.DecodeError, UnicodeEncodeError):
        values = [-1]
    if any(value not in (0, 1) for value in values):
        return "label unreadable", f"the label {quoted(text)} is not a list of 0 and 1"
    if len(values) != SEGMENTS:
        return "label of wrong length", f"the label has {len(values)} values instead of {SEGMENTS}"
    return tuple(values)


def _find_annotations(root: Path, annotations: Path | str | None) -> Path:
    candidates = [Path(annotations)] if annotations is not None else [root / "annotations", root]
    if not candidates[-1].is_dir():
        raise DatasetError(f"there is no folder {candidates[-1]}; give the folder of the dataset or its annotations")
    for folder in candidates:
        if (folder / META).is_file():
            return folder
    places = " nor in ".join(str(folder) for folder in candidates)
    raise DatasetError(
        f"{META} is not in {places}; give the folder of OV-AVEBench's annotation files ({META}, {LABELS}, "
        f"{TOTAL_CLASSES}, {SEEN_CLASSES})"
    )


def _read(path: Path) -> bytes:
    try:
        if why := not_regular(path):
            raise DatasetError(f"{path} {why}, not a file; put the annotation file there")
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; put it beside {META}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def _ratio_files(folder: Path) -> list[tuple[str, float]]:
    """Names and ratios of the published choices of training clips."""
    matches = [re.fullmatch(r"ovave_trainratio(\d*\.\d+)_meta\.csv", path.name) for path in sorted(folder.iterdir())]
    return [(match[0], float(match[1])) for match in matches if match and 0 < float(match[1]) < 1]


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; download the file again") from error


def _classes(data: bytes, path: Path) -> tuple[str, ...]:
    """One class a line; lines may end as on Windows, and white space around a name means nothing."""
    names = [line.strip() for line in _text(data, path).rstrip().splitlines()]
    before = set[str]()
    for number, name in enumerate(names, 1):
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise DatasetError(f"{path}, line {number}: {quoted(name)} is no name of a class (and of its folder)")
        if name in before:
            raise DatasetError(f"{path}, line {number}: {quoted(name)} is there twice")
        before.add(name)
    if len(names) < 2:
        raise DatasetError(f"{path} holds {len(names)} lines; at least one class and the background are needed")
    return tuple(names)


def _rows(data: bytes, path: Path, names: Sequence[str], seen: Collection[str]) -> list[_Row]:
    """The clips that a CSV file lists."""
    reader = csv.reader(_text(data, path).splitlines())
    rows: list[_Row] = []
    lines: dict[str, int] = {}
    known, valid = frozenset(names[:-1]), set[tuple[str, ...]]()
    try:
        if (header := next(reader, [])) != _COLUMNS:
            raise DatasetError(
                f"{path}, line 1: the columns are {quoted(','.join(header))} instead of {quoted(','.join(_COLUMNS))}"
            )
        for row in reader:
            if not row:
                continue
            if tuple(row[:-1]) not in valid or not _VIDEO.fullmatch(row[-1]):
                if problem := _problem(row, known, seen):
                    raise DatasetError(f"{path}, line {reader.line_num}: {problem}")
                valid.add(tuple(row[:-1]))
            if row[3] in lines:
                raise DatasetError(f"{path}, line {reader.line_num}: {row[3]} is in line {lines[row[3]]} already")
            lines[row[3]] = reader.line_num
            rows.append((row[0], row[1], row[2], row[3]))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def _problem(row: Sequence[str], known: Collection[str], seen: Collection[str]) -> str:
    """What is wrong with a row of META, or nothing."""
    if len(row) != len(_COLUMNS):
        return f"{len(row)} values instead of {len(_COLUMNS)}"
    split, category, kind, name = row
    if split not in SPLITS:
        return f"the split is {quoted(split)} instead of one of {', '.join(SPLITS)}"
    if category not in known:
        return f"the class {quoted(category)} is not among those of {TOTAL_CLASSES}"
    if kind not in ("close", "open"):
        return f"the class is said to be {quoted(kind)} instead of 'close' or 'open'"
    if (kind == "close") != (category in seen):
        return f"{quoted(category)} is said to be {quoted(kind)}, which contradicts {SEEN_CLASSES}"
    if split == "train" and kind == "open":
        return f"a training clip of the unseen class {quoted(category)}"
    if not _VIDEO.fullmatch(name):
        return f"{quoted(name)} is no name of a video (and of its files)"
    return ""


def _choose(clips: Sequence[Clip], ratio: float) -> frozenset[str]:
    """A share of the training clips of each class, rounded up as in the published choice.

    Ordered by a hash of their names, so that it depends on nothing else, and a smaller ratio's clips are among a
    larger one's.
    """
    of_class: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        if clip.split == "train":
            of_class[clip.category].append(clip.name)
    return frozenset(
        name
        for names in of_class.values()
        for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[
            : math.ceil(round(ratio * len(names), 6))
        ]
    )
