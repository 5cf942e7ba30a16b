"""What every labelled data set is: clips of ten seconds with a class for each second, and the way to their media.

A damaged clip never keeps a data set from opening: it is listed like the others, and `Dataset.windows` says what is
wrong with it. Anything that would make other clips mean something else does.

Shapes: N clips; T segments of a clip (10); C classes with the background last.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from ovavel.eval.datasets.clip_media import SEGMENTS, ClipMedia, DamagedClip
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.types import Window

__all__ = ["SPLITS", "Clip", "Dataset", "Inspected", "Kind", "LabelledEvent", "Recording", "Truth", "side_files_text"]

SPLITS = ("train", "val", "test")

Kind = Literal["all", "seen", "unseen"]

Truth: TypeAlias = "NDArray[np.intp] | NDArray[np.bool_]"
"""(N, T) class indices, or (N, T, C) whether a second holds a class, where it may hold several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Ten seconds of an annotated video."""

    split: str
    """"train", "val" or "test"."""
    name: str
    """Unlike that of any other clip of the split: the id of the video, where it has one clip."""
    category: str
    """Its class, wherever a label is 1; with `classes`, the one that lasts longest, or the background."""
    seen: bool
    """Whether its class is among those that are trained on ("close" in OV-AVEBench's files)."""
    labels: tuple[int, ...]
    """T labels: 1 where the event is both seen and heard, else 0. Empty where `label_damage` is set."""
    label_damage: tuple[str, str] | None = None
    """Kind (one of `clip_media.KINDS`) and message, where the annotation of this clip cannot be used."""
    classes: tuple[tuple[str, ...], ...] = ()
    """What each of the T seconds holds, in a data set whose events may overlap; empty in others."""
    video: str = ""
    """Id of the video, where `name` is not it."""
    start_s: int = 0
    """Second of the video that it begins with."""


class LabelledEvent(NamedTuple):
    """An annotated event, at the times that its annotation gives."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A whole video that is cut into clips, in a data set that measures events on whole videos."""

    split: str
    """"train", "val" or "test"."""
    duration_s: float
    events: tuple[LabelledEvent, ...]
    """In file order; they may overlap."""

    @property
    def seconds(self) -> int:
        """Seconds that its clips cover: its duration, rounded, and one at least."""
        return max(1, int(self.duration_s + 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a look at all media of a clip found."""

    problems: tuple[DamagedClip, ...]
    duration_s: float
    """Of its sound, ten seconds at most; what is missing is silence."""
    side_files: int = 0
    """Files named as its media with `._` before it, which are not read."""


def side_files_text(count: int) -> str:
    """A note on files that other systems leave beside a copy."""
    return f"{count} side file{'' if count == 1 else 's'} of media (._*) {'is' if count == 1 else 'are'} not read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Annotations of clips, and the way to their media. A kind of data set overrides what is not implemented here."""

    root: Path
    """Folder of the media."""
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
    published_choices: Mapping[float, frozenset[str]] = field(default_factory=dict)
    """Training clips of the ratios for which there is an annotation file."""
    recordings: Mapping[str, Recording] = field(default_factory=dict)
    """Id of a video → its events, where they are measured on whole videos; empty in other data sets."""
    notes: tuple[str, ...] = ()
    """What the annotation files hold and this leaves out, with its number."""

    @property
    def overlapping(self) -> bool:
        """Whether a second may hold several classes: then scores use `truths`, and no head is trained."""
        return any(clip.classes for clip in self.clips)

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
        return f"ovavel's own fixed choice of {train_ratio:.0%} of the clips of each class, rounded up"

    def truth(self, clips: Sequence[Clip], names: Sequence[str] | None = None) -> NDArray[np.intp]:
        """(N, T) class indices in `names` (default: the total label space); the background is the last one.

        Raises:
            DatasetError: the annotation of a clip is damaged, its class is not among `names`, or events may overlap.
        """
        names = self.names if names is None else names
        places = {name: place for place, name in enumerate(names[:-1])}
        truth = np.full((len(clips), SEGMENTS), len(names) - 1, np.intp)
        for row, clip in zip(truth, clips, strict=True):
            _check(clip, [clip.category] if not clip.classes else [], places)
            if clip.classes:
                raise DatasetError(
                    f"the events of {self.root} may overlap, and this takes one class a second: it is for data sets "
                    "such as OV-AVEBench and AVE. `ovavel eval score` and `ovavel eval lag` take overlapping events"
                )
            row[np.array(clip.labels) == 1] = places[clip.category]
        return truth

    def truths(self, clips: Sequence[Clip]) -> NDArray[np.bool_]:
        """(N, T, C) whether a second holds a class of the total label space; the background where it holds no other.

        Raises:
            DatasetError: the annotation of a clip is damaged, or its class is not among those of the data set.
        """
        places = {name: place for place, name in enumerate(self.names[:-1])}
        truth: NDArray[np.bool_] = np.zeros((len(clips), SEGMENTS, len(self.names)), np.bool_)
        for row, clip in zip(truth, clips, strict=True):
            held = clip.classes or tuple((clip.category,) if label else () for label in clip.labels)
            _check(clip, [name for second in held for name in second], places)
            for second, found in enumerate(held):
                row[second, [places[name] for name in found]] = True
        truth[..., -1] = ~truth[..., :-1].any(axis=-1)
        return truth

    def files(self, clip: Clip) -> list[Path]:
        """The files of a clip's media that exist."""
        raise NotImplementedError

    def media(self, clip: Clip, rate_hz: int = RATE_HZ) -> ClipMedia:
        """The T frames of a clip and its sound. Raises DamagedClip, as `windows` does."""
        windows = self.windows(clip, rate_hz)
        frames = tuple(window.frame for window in windows if window.frame is not None)
        waveforms = [window.waveform for window in windows if window.waveform is not None]
        fewest = min(map(len, waveforms))  # a stream may change its channels between two seconds
        return ClipMedia(frames=frames, waveform=np.concatenate([each[:fewest] for each in waveforms], axis=1))

    def windows(self, clip: Clip, rate_hz: int = RATE_HZ) -> list[Window]:
        """The T windows of a clip, each with frame and sound; `rate_hz` is that of the sound, whatever the media's.

        Raises:
            DamagedClip: its annotation or its media are missing, unreadable or not as they should be.
        """
        raise NotImplementedError

    def inspection(self, clip: Clip) -> Callable[[], Inspected]:
        """What looks at all media of a clip, but not at its annotation; it can be sent to another process."""
        raise NotImplementedError

    def check_media(self) -> None:
        """Refuse a folder that holds no media at all. Raises DatasetError."""
        raise NotImplementedError


def _check(clip: Clip, held: Sequence[str], places: Mapping[str, int]) -> None:
    if clip.label_damage:
        raise DatasetError(f"{clip.split}/{clip.name} has no truth: {clip.label_damage[1]}")
    if unknown := [name for name in held if name not in places]:
        raise DatasetError(
            f"{clip.split}/{clip.name} is of class {unknown[0]!r}, which is not among the {len(places) + 1} names"
        )


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
