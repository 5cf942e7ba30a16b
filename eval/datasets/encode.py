"""Embeddings of a dataset's clips: from the media through a backend's encoders, or from a feature cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.clip_media import DamagedClip
from ovavel.eval.datasets.dataset import Clip, Dataset
from ovavel.eval.datasets.feature_cache import FeatureCache, Features
from ovavel.runtime.backends import Backend, BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import SENSES, Encoders, Graph
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import BUFFER, Window

__all__ = [
    "DamagedRecord",
    "Encoded",
    "check_precision",
    "encode_clips",
    "load_cached",
    "what_ran",
]

_ENCODERS: tuple[Graph, ...] = ("vision", "audio")
_READERS = 2
_AHEAD = 8  # clips that may wait in memory for the encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRecord:
    """A clip that could not be read. It is left out of all scores but listed in every table."""

    split: str
    name: str
    category: str
    kind: str
    message: str


class Encoded(NamedTuple):
    """Embeddings of the readable clips, and the damaged ones."""

    features: Features
    damaged: tuple[DamagedRecord, ...]


def what_ran(backend: BackendInfo, cache: FeatureCache | None) -> str:
    """Describe what computed embeddings and decisions: with a cache, the bundle's encoders did not run."""
    where = f"{backend.name} {backend.provider} on {backend.device}"
    if cache is None:
        precisions = ", ".join(f"{graph} {precision}" for graph, precision in backend.precision.items())
        return f"The bundle's own encoders and head ran over the media: {where}, {precisions}."
    made = cache.info
    return (
        f"The bundle's encoders did not run: the embeddings are those of the cache {cache.path.name}, by "
        f"{made.backend} in {made.precision} on {made.device}. Only the head ran here: {where}."
    )


def load_cached(cache: FeatureCache, dataset: Dataset, bundle: Bundle, clips: Sequence[Clip]) -> Encoded:
    """Take the embeddings of `clips` from a cache, if it is of this dataset and of the bundle's encoders.

    Raises:
        DatasetError: it is of other annotations or other weights, or lacks a clip.
    """
    if cache.info.dataset_fingerprint != dataset.fingerprint or cache.names != dataset.names:
        raise DatasetError(
            f"the feature cache {cache.path} was made for other annotations than those of {dataset.root}; "
            "run `ovavel train features` for these"
        )
    weights = bundle.manifest.model.weights_sha256
    if cache.info.weights_sha256 != weights:
        raise DatasetError(
            f"the feature cache {cache.path} is of the weights {cache.info.weights_sha256[:12]}… and the bundle "
            f"{bundle.path} of {weights[:12]}…; give the cache of the bundle's own encoders"
        )
    if cache.info.encoders != bundle.manifest.encoders:
        raise DatasetError(
            f"the seconds of the feature cache {cache.path} were not prepared as the bundle {bundle.path} prepares "
            f"them ({_difference(cache.info.encoders, bundle.manifest.encoders)}); run `ovavel train features` again"
        )
    features = cache.load(clips)
    damaged = []
    for clip in features.damaged:
        damage = cache.damaged[clip.split, clip.name]
        damaged.append(_record(clip, damage.kind, damage.message))
    return _checked(features, damaged)


def check_precision(cache: FeatureCache, bundle: Bundle, engine: str, precision: str | None = None) -> None:
    """Refuse a cache of embeddings in another precision than `engine` runs the bundle in; None: its default.

    Raises:
        DatasetError: it does.
    """
    vision, audio = (bundle.precision(graph, engine, precision) for graph in _ENCODERS)
    runs = vision if vision == audio else f"vision {vision}, audio {audio}"
    if cache.info.precision != runs:
        raise DatasetError(
            f"the feature cache {cache.path} was computed in {cache.info.precision} and {engine} runs the bundle "
            f"{bundle.path} in {runs}: its figures would not be those of the bundle. Make a cache with "
            "`ovavel train features --bundle`, or accept this one with --any-precision"
        )


def _difference(made: Encoders, wanted: Encoders) -> str:
    """Name the first of what differs between two preparations of the same weights."""
    for sense in SENSES:
        theirs, ours = (msgspec.to_builtins(each.of(sense)) for each in (made, wanted))
        theirs, ours = ({**each.pop("parameters"), **each} for each in (theirs, ours))
        for name in dict.fromkeys((*theirs, *ours)):
            if theirs.get(name) != ours.get(name):
                return f"{sense}: {name} {theirs.get(name)}, not {ours.get(name)}"
    return "equal"


def encode_clips(
    dataset: Dataset,
    clips: Sequence[Clip],
    backend: Backend,
    *,
    progress: Progress = no_progress,
) -> Encoded:
    """Run the encoders of `backend` over the media of `clips`, read ahead in threads.

    `progress` is called after each clip.

    Raises:
        DatasetError: not one of the clips could be read.
    """
    size = 1 if backend.info.batch == 1 else BUFFER  # on a GPU a whole clip at once
    whole: list[Clip] = []
    audio: list[NDArray[np.float32]] = []
    vision: list[NDArray[np.float32]] = []
    damaged: list[DamagedRecord] = []
    rate_hz = sound_rate(backend.encoders)
    with closing(Encoder(backend)) as encoder, closing(_read_ahead(dataset, clips, rate_hz)) as reading:
        for done, (clip, windows) in enumerate(reading, 1):
            if isinstance(windows, DamagedClip):
                damaged.append(_record(clip, windows.kind, str(windows)))
            else:
                segments = [s for i in range(0, len(windows), size) for s in encoder.encode(windows[i : i + size])]
                audio.append(np.stack([s.audio for s in segments if s.audio is not None]))
                vision.append(np.stack([s.vision for s in segments if s.vision is not None]))
                whole.append(clip)
            progress("encoding", done, len(clips))
    lost = {(record.split, record.name) for record in damaged}
    features = Features(
        clips=tuple(whole),
        audio=np.stack(audio) if audio else np.empty((0, BUFFER, 0), np.float32),
        vision=np.stack(vision) if vision else np.empty((0, BUFFER, 0), np.float32),
        damaged=tuple(clip for clip in clips if (clip.split, clip.name) in lost),
    )
    return _checked(features, damaged)


def _record(clip: Clip, kind: str, message: str) -> DamagedRecord:
    return DamagedRecord(split=clip.split, name=clip.name, category=clip.category, kind=kind, message=message)


def _checked(features: Features, damaged: Sequence[DamagedRecord]) -> Encoded:
    if not features.clips:
        said = (
            f"all {len(damaged)} clips are damaged; the first: {damaged[0].message}" if damaged else "there is no clip"
        )
        raise DatasetError(f"nothing can be scored: {said}. `ovavel eval data` lists every clip")
    return Encoded(features, tuple(damaged))


def _read_ahead(
    dataset: Dataset, clips: Sequence[Clip], rate_hz: int
) -> Generator[tuple[Clip, list[Window] | DamagedClip]]:
    """Yield clips in order with their ten windows, or the reason why there are none."""
    waiting: deque[tuple[Clip, Future[list[Window]]]] = deque()
    coming = iter(clips)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ovavel-read") as pool:
        try:
            while True:
                while len(waiting) < _AHEAD and (clip := next(coming, None)) is not None:
                    waiting.append((clip, pool.submit(dataset.windows, clip, rate_hz)))
                if not waiting:
                    return
                clip, windows = waiting.popleft()
                try:
                    found: list[Window] | DamagedClip = windows.result()
                except DamagedClip as damage:
                    found = damage
                yield clip, found
        finally:
            for _, windows in waiting:
                windows.cancel()
