"""Streams to compare economy on: days of the demo world, clips of a labelled data set joined, recordings."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import AnyTruth
from ovavel.eval.datasets.clip_media import SEGMENTS, DamagedClip
from ovavel.eval.datasets.dataset import Clip, Dataset
from ovavel.eval.demo.world.day import Day, DaySource
from ovavel.eval.demo.world.plan import DayKind, TrueEvent
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.sources import Source
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import WINDOW_S, Chunk, Frame, Samples, Sense

__all__ = ["Stream", "dataset_stream", "day_streams", "recording_streams"]


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Something to watch with and without economy, always the same."""

    group: str
    """What it is one of several of, e.g. "sparse days"."""
    name: str
    """Unlike that of any other stream of other content; also a file name."""
    content: str
    """Changes with anything that it shows or sounds."""
    open: Callable[[], Source]
    made: bool = False
    """Whether it is made up as it is watched, in the thread that delivers it: that is then no part of its CPU time."""
    seconds: int | None = None
    """None where nobody knows before it has been read."""
    truth: AnyTruth | None = None
    """(N, T) class indices or (N, T, C) bool, for every ten seconds; None where it is shorter or not labelled."""
    events: tuple[TrueEvent, ...] | None = None
    """None where they are not known."""
    changed: Callable[[], bool] = _never
    """Whether it is no longer what `content` describes, as a recording that is still being written."""
    damaged: list[str] = field(default_factory=list)
    """Clips that could not be read when it was played, each with the reason. None of them is in the stream."""


def day_streams(kinds: Iterable[DayKind], seeds: Sequence[int], seconds: int, names: Sequence[str]) -> Iterator[Stream]:
    """Yield a day of each kind and seed. `names` are the class names of the bundle, background last.

    Raises:
        DatasetError: one of the demo world's classes is not among them.
    """
    for kind in kinds:
        for seed in seeds:
            day = Day(kind, seed, seconds)
            whole = seconds // SEGMENTS * SEGMENTS
            labels = _places(day.labels[:whole], names, "the demo world")
            yield Stream(
                group=f"{kind} days",
                name=f"{kind}-{seed}",
                content=f"{kind} day, seed {seed}, {seconds} s, {_sample(day)}",
                open=partial(DaySource, day),
                made=True,
                seconds=seconds,
                truth=labels.reshape(-1, SEGMENTS) if whole else None,
                events=day.events,
            )


def recording_streams(paths: Sequence[Path]) -> Iterator[Stream]:
    """Yield each recording."""
    for path in paths:
        state = _state(path)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"recording-{content[:8]}-{path.name}"  # no number: it would change with the recordings beside it
        yield Stream(
            group="recordings",
            name=name,
            content=content,
            open=partial(MediaSource, path),
            changed=partial(_changed, path, state),
        )


def dataset_stream(dataset: Dataset, clips: Sequence[Clip], names: Sequence[str], rate_hz: int) -> Stream:
    """Join clips to one stream, in the order given. `names` are the class names of the bundle, background last.

    Clips that cannot be read are left out and listed in `Stream.damaged`: so all are read once to find them.

    Raises:
        DatasetError: none could be read, or a class of the data set is not among `names`.
    """
    damaged, whole = [], []
    for clip in clips:
        try:
            dataset.windows(clip, rate_hz)
            whole.append(clip)
        except DamagedClip as error:
            damaged.append(f"{clip.split}/{clip.name}: {error}")
    if not whole:
        raise DatasetError(f"not one of {len(clips)} clips could be read; the first: {damaged[0]}")
    places = _places([*dataset.names[:-1], names[-1]], names, str(dataset.root))
    if dataset.overlapping:
        held = dataset.truths(whole)
        truth: AnyTruth = np.zeros((*held.shape[:2], len(names)), np.bool_)
        truth[:, :, places] = held
    else:
        truth = places[dataset.truth(whole)]
    chosen = hashlib.sha256("\n".join(f"{clip.split}/{clip.name}" for clip in whole).encode()).hexdigest()
    return Stream(
        group=f"{len(whole)} clips joined",
        name="clips",
        content=f"{dataset.fingerprint} {chosen}",
        open=partial(_ClipsSource, dataset, whole, rate_hz),
        seconds=len(whole) * SEGMENTS,
        truth=truth,
        damaged=damaged,
    )


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _changed(path: Path, state: tuple[int, ...]) -> bool:
    try:
        return _state(path) != state
    except OSError:  # deleted
        return True


def _places(labels: Sequence[str], names: Sequence[str], source: str) -> NDArray[np.intp]:
    """Place of each label among `names`."""
    places = {name: place for place, name in enumerate(names)}
    if missing := sorted(set(labels) - set(places)):
        raise DatasetError(
            f"{len(missing)} of the classes of {source} are not in the bundle's vocabulary, {missing[0]!r} for one: "
            "add them with 'ovavel vocab add'"
        )
    return np.array([places[label] for label in labels], np.intp)


def _sample(day: Day) -> str:
    """A fingerprint of how days are made: of three of its seconds."""
    digest = hashlib.sha256()
    for second in (0, day.seconds // 2, day.seconds - 1):
        digest.update(day.frame(second + WINDOW_S / 2).tobytes())
        digest.update(day.sound(second).tobytes())
    return digest.hexdigest()[:16]


class _ClipsSource:
    """Plays clips one after the other, as a recording."""

    def __init__(self, dataset: Dataset, clips: Sequence[Clip], rate_hz: int) -> None:
        self.name = str(dataset.root)
        self.senses: frozenset[Sense] = frozenset(("vision", "audio"))
        self.live = False
        self.recorded = True
        self.duration_s: float | None = len(clips) * SEGMENTS * WINDOW_S
        self._dataset, self._clips, self._rate_hz = dataset, clips, rate_hz
        self._stopping = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """Yield a frame from the middle of each second, and its sound."""
        second = 0
        for clip in self._clips:
            for window in self._dataset.windows(clip, self._rate_hz):
                if self._stopping.is_set():
                    return
                now_s, frame, sound = time.monotonic(), window.frame, window.waveform
                assert frame is not None  # a clip without one is damaged
                assert sound is not None
                yield Frame(time_s=second + WINDOW_S / 2, captured_s=now_s, image=partial(_same, frame))
                # Clips differ in their number of channels, and a stream does not change it: the first is heard.
                yield Samples(time_s=float(second), captured_s=now_s, waveform=sound[:1], rate_hz=self._rate_hz)
                second += 1

    def close(self) -> None:
        """End `chunks`, from any thread."""
        self._stopping.set()


def _same(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame
