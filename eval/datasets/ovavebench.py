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

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from ovavel.eval.datasets.annotations import (
    LABELS,
    META,
    SEEN_CLASSES,
    SPLITS,
    TOTAL_CLASSES,
    TRAIN_RATIO,
    Labels,
    Row,
    class_names,
    find_annotations,
    ratio_files,
    read_file,
    read_rows,
)
from ovavel.eval.datasets.clip_media import SEGMENTS, ClipMedia, DamagedClip, fit, read_frames, read_sound, to_windows
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.paths import check_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.types import Window

__all__ = ["Clip", "DamagedClip", "OVAVEBench", "to_windows"]

PUBLISHED_RATIOS = (0.25,)


Kind = Literal["all", "seen", "unseen"]


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
        folder = find_annotations(root, annotations)
        contents = {name: read_file(folder / name) for name in (META, LABELS, TOTAL_CLASSES, SEEN_CLASSES)}
        choice_files = {ratio: folder / name for name, ratio in ratio_files(folder)}
        contents |= {path.name: read_file(path) for path in choice_files.values()}

        names = class_names(contents[TOTAL_CLASSES], folder / TOTAL_CLASSES)
        seen_names = class_names(contents[SEEN_CLASSES], folder / SEEN_CLASSES)
        if extra := set(seen_names) - set(names):
            raise DatasetError(
                f"{folder / SEEN_CLASSES}: {quoted(min(extra))} is not among the classes of {TOTAL_CLASSES}"
            )
        if names[-1] != seen_names[-1]:
            raise DatasetError(
                f"{folder / SEEN_CLASSES}: the last line is {quoted(seen_names[-1])}, but "
                f"{quoted(names[-1])} in {TOTAL_CLASSES}; both end with the background"
            )
        rows = read_rows(contents[META], folder / META, names, frozenset(seen_names))
        if not rows:
            raise DatasetError(f"{folder / META} names no clip")
        labels = Labels(contents[LABELS], folder / LABELS)
        clips = tuple(_clip(row, *labels.of(row)) for row in rows)
        training = frozenset(row for row in rows if row[0] == "train")
        choices = {}
        for ratio, path in choice_files.items():
            chosen = [
                row for row in read_rows(contents[path.name], path, names, frozenset(seen_names)) if row[0] == "train"
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
        self.describe_ratio(train_ratio)  # raises if it is unavailable
        if split != "train" or train_ratio == 1:
            return tuple(clips)
        names = self.published_choices.get(train_ratio)
        if names is None:
            names = _choose(self.clips, train_ratio)
        return tuple(clip for clip in clips if clip.name in names)

    def describe_ratio(self, train_ratio: float) -> str:
        """Describe the training clips that `select` takes at this ratio, for reports.

        Raises:
            UsageError: the ratio is not in (0, 1].
            DatasetError: the ratio's clips were published, but the file is not there.
        """
        if not 0 < train_ratio <= 1:
            raise UsageError(f"a train ratio of {train_ratio} is invalid; give a number above 0, up to 1")
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


def _clip(row: Row, labels: tuple[int, ...], damage: tuple[str, str] | None) -> Clip:
    split, category, kind, name = row
    return Clip(split=split, name=name, category=category, seen=kind == "close", labels=labels, label_damage=damage)


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
