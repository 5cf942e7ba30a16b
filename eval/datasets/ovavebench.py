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
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ovavel.eval.datasets.annotations import (
    LABELS,
    META,
    SEEN_CLASSES,
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
from ovavel.eval.datasets.clip_media import (
    SEGMENTS,
    ClipMedia,
    DamagedClip,
    fit,
    frame_paths,
    read_frame,
    read_frames,
    read_sound,
    to_windows,
)
from ovavel.eval.datasets.dataset import SPLITS, Clip, Dataset, Inspected
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.paths import check_path
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from ovavel.runtime.types import Window

__all__ = ["Clip", "DamagedClip", "OVAVEBench", "to_windows"]

PUBLISHED_RATIOS = (0.25,)


@dataclass(frozen=True, slots=True, kw_only=True)
class OVAVEBench(Dataset):
    """The annotations of OV-AVEBench, and the way to its media."""

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

    def describe_ratio(self, train_ratio: float) -> str:
        """Describe the training clips that `select` takes at this ratio, for reports.

        Raises:
            UsageError: the ratio is not in (0, 1].
            DatasetError: the ratio's clips were published, but the file is not there.
        """
        said = Dataset.describe_ratio(self, train_ratio)
        file = TRAIN_RATIO.format(ratio=train_ratio)
        if train_ratio == 1:
            return said
        if train_ratio in self.published_choices:
            return f"the training clips of {file}"
        if train_ratio in PUBLISHED_RATIOS:
            raise DatasetError(
                f"{file} is not among the annotation files; the choice of clips for this ratio was published: "
                "put the file beside the others, or choose another ratio"
            )
        return f"{said} (there is no {file}, so not the clips of the paper)"

    def audio_path(self, clip: Clip) -> Path:
        """Sound of a clip."""
        return self.root / clip.split / "audio" / clip.category / f"{clip.name}.wav"

    def frames_dir(self, clip: Clip) -> Path:
        """Folder of a clip's ten frames."""
        return self.root / clip.split / "video" / clip.category / clip.name

    def media(self, clip: Clip, rate_hz: int = RATE_HZ) -> ClipMedia:
        """Read the frames and the sound of a clip.

        Raises:
            DamagedClip: its annotation, sound or frames are missing, unreadable or not as they should be.
        """
        if clip.label_damage:
            raise DamagedClip(*clip.label_damage)
        waveform = fit(read_sound(self.audio_path(clip), rate_hz), rate_hz)
        return ClipMedia(frames=read_frames(self.frames_dir(clip)), waveform=waveform)

    def windows(self, clip: Clip, rate_hz: int = RATE_HZ) -> list[Window]:
        """The T windows of a clip.

        Raises:
            DamagedClip: as `media`.
        """
        return to_windows(self.media(clip, rate_hz))

    def files(self, clip: Clip) -> list[Path]:
        """The sound and the images of a clip, and whatever else its folder holds."""
        folder = self.frames_dir(clip)
        frames = sorted(folder.iterdir()) if folder.is_dir() else []
        return [file for file in (self.audio_path(clip), *frames) if file.is_file()]

    def inspection(self, clip: Clip) -> Callable[[], Inspected]:
        """What looks at the sound and at every image of a clip."""
        return partial(_inspect, self.audio_path(clip), self.frames_dir(clip))

    def check_media(self) -> None:
        """Refuse a folder without any split. Raises DatasetError."""
        if not any((self.root / split).is_dir() for split in SPLITS):
            raise DatasetError(
                f"{self.root} has no folder train, val or test; give the folder that holds the splits "
                "(`ovavel train prepare` makes one of raw videos)"
            )


def _inspect(sound: Path, frames: Path) -> Inspected:
    """Look at a sound and at images, up to the first problem of each."""
    problems: list[DamagedClip] = []
    duration_s = float(SEGMENTS)
    try:
        duration_s = read_sound(sound).shape[1] / RATE_HZ
    except DamagedClip as error:
        problems.append(error)
    try:
        for path in frame_paths(frames):
            read_frame(path)
    except DamagedClip as error:
        problems.append(error)
    beside = [sound.with_name(f"._{sound.name}"), *(frames.glob("._*") if frames.is_dir() else ())]
    return Inspected(problems=tuple(problems), duration_s=duration_s, side_files=sum(map(os.path.lexists, beside)))


def _clip(row: Row, labels: tuple[int, ...], damage: tuple[str, str] | None) -> Clip:
    split, category, kind, name = row
    return Clip(split=split, name=name, category=category, seen=kind == "close", labels=labels, label_damage=damage)
