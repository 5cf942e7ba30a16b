"""What two backends are compared on: a labelled dataset or recordings, and inputs no camera should ever give.

Shapes: N inputs, T seconds of a clip (at most ten), D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.encode import DamagedRecord, encode_clips
from ovavel.eval.datasets.ovavebench import Clip, DamagedClip, OVAVEBench
from ovavel.eval.datasets.recordings import read_windows
from ovavel.runtime.backends import Backend
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.progress import Progress, part_of
from ovavel.runtime.types import BUFFER, Segment, Window
from ovavel.runtime.verification.samples import random_frame, random_waveform, sample_frames, sample_waveforms

__all__ = [
    "ClipEmbeddings",
    "Clips",
    "DatasetClips",
    "RecordedClips",
    "adversarial_frames",
    "adversarial_waveforms",
    "encode_adversarial",
]

_RANDOM = 6
"""Random pictures and sounds beside the extremes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipEmbeddings:
    """What one backend's encoders make of one clip; seconds that lack a sense are left out."""

    name: str
    seconds: tuple[int, ...]
    """Where the T seconds stand in what `name` names."""
    vision: NDArray[np.float32]
    """(T, D)."""
    audio: NDArray[np.float32]
    """(T, D)."""


class Clips(Protocol):
    """Clips that any backend can be run over, as often as need be."""

    @property
    def summary(self) -> str:
        """What they are, in a few words."""

    @property
    def duration_s(self) -> float:
        """About how many seconds of media."""

    def encode(self, backend: Backend, progress: Progress) -> list[ClipEmbeddings]:
        """Run the encoders of `backend` over all of them, in the same order every time; `progress` gets seconds."""

    def window(self, name: str, second: int) -> Window:
        """One second again, to be shown."""


class DatasetClips:
    """Clips of a split of OV-AVEBench's layout, evenly chosen among those that can be read."""

    def __init__(self, dataset: OVAVEBench, split: str, most: int | None = None) -> None:
        """Take `most` clips of the split `split` that can be read, spread over it, or all clips.

        Raises:
            UsageError: there is no such split, or `most` is not positive.
        """
        if most is not None and most < 1:
            raise UsageError(f"the number of clips must be at least 1, not {most}")
        whole = dataset.select(split)
        self.clips, self._passed = (whole, 0) if most is None else _readable(dataset, whole, most)
        self.damaged: tuple[DamagedRecord, ...] = ()
        self.dataset = dataset
        self._split, self._all = split, len(whole)

    @property
    def summary(self) -> str:
        """What they are, in a few words."""
        lost = f", {len(self.damaged)} of them damaged" if self.damaged else ""
        passed = f"; {self._passed} damaged ones were passed over" if self._passed else ""
        return f"{len(self.clips)} of {self._all} clips of {self._split}{lost}{passed}"

    @property
    def duration_s(self) -> float:
        """Seconds of media."""
        return float(BUFFER * len(self.clips))

    def encode(self, backend: Backend, progress: Progress) -> list[ClipEmbeddings]:
        """Run the encoders over all that can be read."""
        in_seconds = part_of(progress, 0, self.duration_s, of=self.duration_s)
        encoded = encode_clips(self.dataset, self.clips, backend, progress=in_seconds)
        self.damaged = encoded.damaged
        features = encoded.features
        return [
            ClipEmbeddings(name=_clip_name(clip), seconds=tuple(range(BUFFER)), vision=vision, audio=audio)
            for clip, vision, audio in zip(features.clips, features.vision, features.audio, strict=True)
        ]

    def window(self, name: str, second: int) -> Window:
        """One second again."""
        clip = next(clip for clip in self.clips if _clip_name(clip) == name)
        return self.dataset.windows(clip)[second]

    def truth(self, names: Sequence[str]) -> NDArray[np.intp]:
        """(clips, T) true classes of the clips called `names`."""
        by_name = {_clip_name(clip): clip for clip in self.clips}
        return self.dataset.truth([by_name[name] for name in names])


def _readable(dataset: OVAVEBench, clips: Sequence[Clip], most: int) -> tuple[tuple[Clip, ...], int]:
    """Choose `most` clips that can be read, in file order, and count those that could not.

    The clips are cut into `most` equal parts, and the first clip of each part that can be read is taken; what is still
    missing then is taken from the rest. All are returned, unread, where none can be read: encoding says why.
    """
    count = min(most, len(clips))
    damaged: set[int] = set()

    def readable(place: int) -> bool:
        try:
            dataset.media(clips[place])
        except DamagedClip:
            damaged.add(place)
            return False
        return True

    chosen: list[int] = []
    for part in range(count):
        places = range(part * len(clips) // count, (part + 1) * len(clips) // count)
        chosen += islice(filter(readable, places), 1)
    tried = {*chosen, *damaged}
    rest = [place for place in range(len(clips)) if place not in tried]
    chosen += islice(filter(readable, rest), count - len(chosen))
    if not chosen:
        return tuple(clips), 0
    return tuple(clips[place] for place in sorted(chosen)), len(damaged)


class RecordedClips:
    """Recordings, cut into pieces of ten seconds. Those that cannot be read are left out."""

    def __init__(self, files: Sequence[Path], channel: Channel = "auto") -> None:
        """Take all of `files`, and listen to `channel` of their sound.

        Raises:
            MediaError: none of them can be read.
        """
        self._channel = channel
        self._count = len(files)
        self._files: dict[str, Path] = {}
        self.damaged: dict[str, str] = {}
        """Why a recording cannot be read, by its path."""
        self.duration_s = 0.0
        for file in files:
            try:
                self.duration_s += _duration_s(file)
                self._files[str(file)] = file
            except MediaError as error:
                self.damaged[str(file)] = str(error)
        self._check()

    @property
    def summary(self) -> str:
        """What they are, in a few words."""
        lost = f", {len(self.damaged)} of them unreadable" if self.damaged else ""
        return f"{self._count} recordings{lost}" if self._count > 1 else next(iter({**self._files, **self.damaged}))

    def encode(self, backend: Backend, progress: Progress) -> list[ClipEmbeddings]:
        """Run the encoders over all that can be read.

        Raises:
            MediaError: none can, or none has a second with both picture and sound.
        """
        clips: list[ClipEmbeddings] = []
        done_s = 0.0
        for name, file in [*self._files.items()]:
            segments: list[Segment] = []
            try:
                for window_segments in _encoded(read_windows(file, self._channel), backend):
                    segments += window_segments
                    progress("encoding", done_s + len(segments), self.duration_s)
            except (MediaError, UsageError) as error:  # the latter for frames that no model could use
                self.damaged[name] = str(error)
                del self._files[name]
                self._check()
                continue
            done_s += len(segments)
            pieces = (_clip(name, segments[start : start + BUFFER]) for start in range(0, len(segments), BUFFER))
            clips += [piece for piece in pieces if piece]
        if not clips:
            raise MediaError(f"{self.summary}: no second has both picture and sound; give recordings that have")
        return clips

    def _check(self) -> None:
        """Make sure that something is left."""
        if not self._files:
            first = next(iter(self.damaged.values()), "none is named")
            more = f" (nor can the other {self._count - 1})" if self._count > 1 else ""
            raise MediaError(f"{first}{more}")

    def window(self, name: str, second: int) -> Window:
        """One second again."""
        windows = read_windows(self._files[name], self._channel)
        return next(window for window in windows if window.index == second)


@cache
def adversarial_frames() -> dict[str, NDArray[np.uint8]]:
    """Frames by name: the extremes, and random ones beside them."""
    return sample_frames() | {f"picture {seed}": random_frame(seed) for seed in range(_RANDOM)}


@cache
def adversarial_waveforms() -> dict[str, NDArray[np.float32]]:
    """Waveforms by name: the extremes, and random ones beside them. All are finite."""
    return sample_waveforms() | {f"sound {seed}": random_waveform(seed) for seed in range(_RANDOM)}


def encode_adversarial(backend: Backend) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the encoders over each of them by itself, as a camera brings them; (N, D) of vision, (N, D) of audio."""
    encoder = Encoder(backend)
    try:
        seen = [encoder.encode([_window(frame=frame)])[0].vision for frame in adversarial_frames().values()]
        heard = [encoder.encode([_window(waveform=wave)])[0].audio for wave in adversarial_waveforms().values()]
    finally:
        encoder.close()
    return np.stack([row for row in seen if row is not None]), np.stack([row for row in heard if row is not None])


def _window(*, frame: NDArray[np.uint8] | None = None, waveform: NDArray[np.float32] | None = None) -> Window:
    return Window(index=0, start_s=0.0, frame=frame, waveform=waveform, captured_s=0.0)


def _encoded(windows: Iterator[Window], backend: Backend) -> Iterator[list[Segment]]:
    encoder, waiting = Encoder(backend), list[Window]()
    try:
        for window in windows:
            waiting.append(window)
            if len(waiting) == backend.info.batch:
                yield encoder.encode(waiting)
                waiting.clear()
        yield encoder.encode(waiting)
    finally:
        encoder.close()


def _clip(name: str, segments: Sequence[Segment]) -> ClipEmbeddings | None:
    whole = [s for s in segments if s.vision is not None and s.audio is not None]
    if not whole:
        return None
    return ClipEmbeddings(
        name=name,
        seconds=tuple(s.index for s in whole),
        vision=np.stack([s.vision for s in whole if s.vision is not None]),
        audio=np.stack([s.audio for s in whole if s.audio is not None]),
    )


def _duration_s(path: Path) -> float:
    source = MediaSource(path)
    source.close()
    return source.duration_s or 0.0


def _clip_name(clip: Clip) -> str:
    return f"{clip.category}/{clip.name}"
