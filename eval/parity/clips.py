"""Inputs for comparing two backends: a labelled dataset or recordings, and adversarial inputs.

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

from ovavel.eval.datasets.clip_media import DamagedClip
from ovavel.eval.datasets.cut import read_windows
from ovavel.eval.datasets.dataset import Clip, Dataset
from ovavel.eval.datasets.encode import DamagedRecord, encode_clips
from ovavel.runtime.backends import Backend
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.progress import Progress, part_of
from ovavel.runtime.types import BUFFER, RATE_HZ, Segment, Window
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
"""Number of random frames and sounds in addition to the extremes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipEmbeddings:
    """One backend's embeddings of one clip; seconds without one of the senses are left out."""

    name: str
    seconds: tuple[int, ...]
    """Positions of the T seconds in the recording or clip called `name`."""
    vision: NDArray[np.float32]
    """(T, D)."""
    audio: NDArray[np.float32]
    """(T, D)."""


class Clips(Protocol):
    """Clips that any number of backends can be run over."""

    @property
    def summary(self) -> str:
        """What they are, in a few words."""

    @property
    def duration_s(self) -> float:
        """About how many seconds of media."""

    def encode(self, backend: Backend, progress: Progress) -> list[ClipEmbeddings]:
        """Run the encoders of `backend` over all of them, in the same order every time; `progress` gets seconds."""

    def window(self, name: str, second: int) -> Window:
        """Return one second again, to show it."""


class DatasetClips:
    """Readable clips of a split in OV-AVEBench's layout, chosen evenly."""

    def __init__(self, dataset: Dataset, split: str, most: int | None = None) -> None:
        """Take `most` readable clips, spread over the split `split`, or all clips.

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
        passed = f"; {self._passed} damaged ones were skipped" if self._passed else ""
        return f"{len(self.clips)} of {self._all} clips of {self._split}{lost}{passed}"

    @property
    def duration_s(self) -> float:
        """Seconds of media."""
        return float(BUFFER * len(self.clips))

    def encode(self, backend: Backend, progress: Progress) -> list[ClipEmbeddings]:
        """Run the encoders over all readable clips."""
        in_seconds = part_of(progress, 0, self.duration_s, of=self.duration_s)
        encoded = encode_clips(self.dataset, self.clips, backend, progress=in_seconds)
        self.damaged = encoded.damaged
        features = encoded.features
        return [
            ClipEmbeddings(name=_clip_name(clip), seconds=tuple(range(BUFFER)), vision=vision, audio=audio)
            for clip, vision, audio in zip(features.clips, features.vision, features.audio, strict=True)
        ]

    def window(self, name: str, second: int) -> Window:
        """Return one second again."""
        clip = next(clip for clip in self.clips if _clip_name(clip) == name)
        return self.dataset.windows(clip)[second]

    def truth(self, names: Sequence[str]) -> NDArray[np.intp]:
        """(clips, T) true classes of the clips called `names`."""
        by_name = {_clip_name(clip): clip for clip in self.clips}
        return self.dataset.truth([by_name[name] for name in names])


def _readable(dataset: Dataset, clips: Sequence[Clip], most: int) -> tuple[tuple[Clip, ...], int]:
    """Choose `most` readable clips, in file order, and count the unreadable ones.

    The clips are divided into `most` equal parts, and the first readable clip of each part is taken; if some parts have
    none, others fill up. If no clip is readable, all are returned: encoding then reports why.
    """
    count = min(most, len(clips))
    damaged: set[int] = set()

    def readable(place: int) -> bool:
        try:
            dataset.windows(clips[place])
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
    """Recordings cut into pieces of ten seconds. Unreadable ones are left out."""

    def __init__(self, files: Sequence[Path], channel: Channel = "auto") -> None:
        """Take all of `files`, and `channel` of their sound.

        Raises:
            MediaError: none of them can be read.
        """
        self._channel = channel
        self._count = len(files)
        self._files: dict[str, Path] = {}
        self.damaged: dict[str, str] = {}
        """Path of an unreadable recording → why."""
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
        """Run the encoders over all readable recordings.

        Raises:
            MediaError: none can be read, or none has a second with both video and sound.
        """
        clips: list[ClipEmbeddings] = []
        done_s, rate_hz = 0.0, sound_rate(backend.encoders)
        for name, file in [*self._files.items()]:
            segments: list[Segment] = []
            try:
                for window_segments in _encoded(read_windows(file, self._channel, rate_hz=rate_hz), backend):
                    segments += window_segments
                    progress("encoding", done_s + len(segments), self.duration_s)
            except (MediaError, UsageError) as error:  # UsageError for frames that no model can use
                self.damaged[name] = str(error)
                del self._files[name]
                self._check()
                continue
            done_s += len(segments)
            pieces = (_clip(name, segments[start : start + BUFFER]) for start in range(0, len(segments), BUFFER))
            clips += [piece for piece in pieces if piece]
        if not clips:
            raise MediaError(f"{self.summary}: no second has both video and sound; give recordings with both")
        return clips

    def _check(self) -> None:
        """Raise MediaError if no readable recording is left."""
        if not self._files:
            first = next(iter(self.damaged.values()), "none is named")
            more = f" (nor can the other {self._count - 1})" if self._count > 1 else ""
            raise MediaError(f"{first}{more}")

    def window(self, name: str, second: int) -> Window:
        """Return one second again."""
        windows = read_windows(self._files[name], self._channel)
        return next(window for window in windows if window.index == second)


@cache
def adversarial_frames() -> dict[str, NDArray[np.uint8]]:
    """Return frames by name: extremes and random ones."""
    return sample_frames() | {f"picture {seed}": random_frame(seed) for seed in range(_RANDOM)}


@cache
def adversarial_waveforms(rate_hz: int = RATE_HZ) -> dict[str, NDArray[np.float32]]:
    """Return waveforms by name: extremes and random ones, all finite."""
    return sample_waveforms(rate_hz) | {f"sound {seed}": random_waveform(seed, rate_hz) for seed in range(_RANDOM)}


def encode_adversarial(backend: Backend) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Encode each adversarial input separately, as with a camera; returns (N, D) vision and (N, D) audio."""
    encoder, waves = Encoder(backend), adversarial_waveforms(sound_rate(backend.encoders))
    try:
        seen = [encoder.encode([_window(frame=frame)])[0].vision for frame in adversarial_frames().values()]
        heard = [encoder.encode([_window(waveform=wave)])[0].audio for wave in waves.values()]
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
