"""Data sets of raw videos: `<id>.<suffix>` in the folder of the data set or anywhere below it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ovavel.eval.datasets.clip_media import SEGMENTS, DamagedClip
from ovavel.eval.datasets.cut import cut_windows, with_both_senses
from ovavel.eval.datasets.dataset import Clip, Dataset, Inspected, side_files_text
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.types import RATE_HZ, WINDOW_S

if TYPE_CHECKING:
    from ovavel.runtime.types import Window

__all__ = ["BACKGROUND", "FoundVideos", "VideoDataset", "digest", "find_folder", "find_videos", "largest_first"]

BACKGROUND = "other"
"""The last name of every data set."""

SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".ts", ".3gp", ".mpg", ".mpeg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDataset(Dataset):
    """Clips that are cut from raw videos when they are needed, as a live source is cut."""

    videos: Mapping[str, Path] = field(default_factory=dict)
    """Id of a video → its file."""

    def files(self, clip: Clip) -> list[Path]:
        """The video, if it exists."""
        video = self.videos.get(clip.video or clip.name)
        return [video] if video else []

    def windows(self, clip: Clip, rate_hz: int = RATE_HZ) -> list[Window]:
        """The T windows of a clip; where the video ends before, its last frame and silence.

        Raises:
            DamagedClip: its annotation or its video is missing, unreadable or not as it should be.
        """
        if clip.label_damage:
            raise DamagedClip(*clip.label_damage)
        video = _video(self.videos.get(clip.video or clip.name), clip)
        return with_both_senses(cut_windows(video, clip.start_s, rate_hz))

    def inspection(self, clip: Clip) -> Callable[[], Inspected]:
        """What decodes the clip."""
        return partial(_inspect, self.videos.get(clip.video or clip.name), clip)

    def check_media(self) -> None:
        """Refuse a folder without any of the videos. Raises DatasetError."""
        if not any(video.exists() for video in self.videos.values()):
            raise DatasetError(
                f"{self.root} holds none of the videos, such as {self.clips[0].video or self.clips[0].name}.mp4; "
                "give the folder that they are in, or below"
            )


def _video(video: Path | None, clip: Clip) -> Path:
    if video is None:
        raise DamagedClip("no video file", f"there is no video {clip.video or clip.name}.*")
    return video


def _inspect(video: Path | None, clip: Clip) -> Inspected:
    try:
        windows = cut_windows(_video(video, clip), clip.start_s)
    except DamagedClip as damage:
        return Inspected(problems=(damage,), duration_s=SEGMENTS * WINDOW_S)
    heard = [window.index + 1 for window in windows if window.waveform is not None]
    return Inspected(problems=(), duration_s=float(max(heard)))


class FoundVideos(NamedTuple):
    """What `find_videos` found."""

    files: dict[str, Path]
    """Id of a video → its file."""
    side_files: int
    """Files named as a video with `._` before it, which other systems leave beside a copy; they are not read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, for `Dataset.notes`."""
        return (side_files_text(self.side_files),) if self.side_files else ()


def find_videos(root: Path, ids: Collection[str]) -> FoundVideos:
    """Find the video of each id in `root` and below it; of several, the largest.

    Side files are counted; other files that are not videos do not count.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    side_files = 0
    before: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in before:  # a link cycle
            below.clear()
            continue
        before.add(real)
        for file in files:
            path = Path(folder, file)
            if path.suffix.lower() in SUFFIXES:
                side_files += path.stem.startswith("._") and path.stem[2:] in ids
                if path.stem in ids:
                    found[path.stem].append(path)
    return FoundVideos({name: min(paths, key=largest_first) for name, paths in found.items()}, side_files)


def largest_first(path: Path) -> tuple[int, str]:
    """Sort key: of several files with one name (thumbnails, sound tracks, descriptions), the largest is the video."""
    try:
        return -path.stat().st_size, str(path)
    except OSError:
        return 0, str(path)


def find_folder(root: Path, annotations: Path | None, file: str, what: str) -> Path:
    """Return the folder that holds `file`: `annotations`, or `root`/annotations, or `root`.

    Raises:
        DatasetError: none of them holds it.
    """
    folders = [annotations] if annotations is not None else [root / "annotations", root]
    for folder in folders:
        if (folder / file).is_file():
            return folder
    places = " nor in ".join(str(folder) for folder in folders)
    raise DatasetError(f"{file} is not in {places}; give the folder of the annotation files of {what}")


def digest(kind: str, contents: Iterable[tuple[str, bytes]]) -> str:
    """Fingerprint of annotation files by name and content."""
    total = hashlib.sha256(kind.encode())
    for name, data in contents:
        total.update(f"\n{name}\0{hashlib.sha256(data).hexdigest()}".encode())
    return total.hexdigest()
