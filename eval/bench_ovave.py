"""A bundle on OV-AVEBench: its encoders over the media, or a feature cache, then its head, then the measures.

A decision is the runtime's own: `Backend.head` over the ten segments of a clip, arg max, and background where no class
has any evidence, as `Localizer.score` decides on a clip.

Shapes: N clips, T segments per clip (ten), D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.features import FeatureCache, Features
from ovavel.eval.metrics import Scores, each_agreement, each_clip, score_agreement, score_clips
from ovavel.eval.ovave import (
    Rows,
    decide,
    fused_labels,
    score_rows,
    score_rows_agreement,
    too_damaged,
    why_not_published,
)
from ovavel.eval.ovavebench import Clip, DamagedClip, OVAVEBench
from ovavel.runtime.backends import Backend, BackendInfo, Graph
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.encoder import Encoder
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.fusion import agree_clip, cosine_similarity
from ovavel.runtime.localizer import Head, deciding_head
from ovavel.runtime.types import FusionKind, Window

if TYPE_CHECKING:
    from ovavel.eval.splits import Split

__all__ = [
    "PROTOCOLS",
    "DamagedRecord",
    "Encoded",
    "Protocol",
    "Report",
    "Result",
    "check_precision",
    "encode_clips",
    "load_cached",
    "score_protocol",
    "what_ran",
]

Protocol = Literal["fused", "fused-positive", "agreement", "agreement-without-other"]
"""How a decision is made (docs/method.md, Decision): "fused" by the bundle's head, "fused-positive" without the
classes that a sense speaks against; the others are training-free, from
the embeddings as they are, with the background among the classes or without it."""

PROTOCOLS: tuple[Protocol, ...] = ("fused", "agreement", "agreement-without-other")

_ENCODERS: tuple[Graph, ...] = ("vision", "audio")
_READERS = 2
_AHEAD = 8  # clips that may wait in memory for the encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRecord:
    """A clip that could not be read. It is in no score, and in every table."""

    split: str
    name: str
    category: str
    kind: str
    message: str


class Encoded(NamedTuple):
    """Embeddings of the clips that could be read, and what became of the others."""

    features: Features
    damaged: tuple[DamagedRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One protocol's decisions and scores."""

    protocol: Protocol
    labels: NDArray[np.intp]
    """(N, T) decisions."""
    senses: tuple[NDArray[np.intp], NDArray[np.intp]] | None
    """(N, T) arg max classes of vision and audio in an agreement protocol; None in the fused one."""
    rows: Rows

    def score(self, keep: NDArray[np.bool_] | slice, truth: NDArray[np.intp], n_classes: int) -> Scores:
        """Score the clips `keep` alone."""
        if self.senses is None:
            return score_clips(self.labels[keep], truth[keep], n_classes)
        vision, audio = self.senses
        return score_agreement(vision[keep], audio[keep], truth[keep], n_classes)

    def each(self, truth: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
        """(N, 4): Acc., Seg., Eve. and Avg. of each clip by itself."""
        if self.senses is None:
            return each_clip(self.labels, truth, n_classes)
        return each_agreement(*self.senses, truth, n_classes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """All that `ovavel eval bench-ovave` finds out."""

    root: str
    split: str
    dataset_fingerprint: str
    names: tuple[str, ...]
    """C names."""
    clips: tuple[Clip, ...]
    """The N clips that are scored."""
    damaged: tuple[DamagedRecord, ...]
    """The clips of the split that are not."""
    truth: NDArray[np.intp]
    """(N, T) class indices."""
    results: tuple[Result, ...]
    """One for each protocol asked for."""
    bundle: Bundle
    backend: BackendInfo
    cache: FeatureCache | None
    """Where the embeddings come from; None: from the media, through the backend."""

    @property
    def counted(self) -> str:
        """How many clips of the split are scored, and why not all."""
        kinds = Counter(record.kind for record in self.damaged)
        told = ", ".join(
            f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        )
        why = f"; {len(self.damaged)} damaged: {told}" if self.damaged else ""
        return f"{len(self.clips)} of {len(self.clips) + len(self.damaged)} clips{why}"

    @property
    def ran(self) -> str:
        """What computed the embeddings and the decisions, in a sentence."""
        return what_ran(self.backend, self.cache)

    @property
    def as_published(self) -> bool:
        """Whether this is the split that the published figures are of, as far as its counts show, and almost whole."""
        return not self.why_not_published

    @property
    def why_not_published(self) -> str:
        """Why no published figures stand beside these; empty where they do."""
        scored, damaged = len(self.clips), len(self.damaged)
        return why_not_published(self.split, len(self.names), scored + damaged) or too_damaged(
            self.split, scored, damaged
        )


def what_ran(backend: BackendInfo, cache: FeatureCache | None) -> str:
    """Say what computed the embeddings and the decisions: with a cache, the bundle's encoders did not run."""
    where = f"{backend.name} {backend.provider} on {backend.device}"
    if cache is None:
        precisions = ", ".join(f"{graph} {precision}" for graph, precision in backend.precision.items())
        return f"The bundle's own encoders and head ran over the media: {where}, {precisions}."
    made = cache.info
    return (
        f"The bundle's encoders did not run: the embeddings are those of the cache {cache.path.name}, by "
        f"{made.backend} in {made.precision} on {made.device}. Only the head ran here: {where}."
    )


def load_cached(cache: FeatureCache, dataset: OVAVEBench, bundle: Bundle, clips: Sequence[Clip]) -> Encoded:
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
    features = cache.load(clips)
    damaged = []
    for clip in features.damaged:
        damage = cache.damaged[clip.split, clip.name]
        damaged.append(_record(clip, damage.kind, damage.message))
    return _checked(features, damaged)


def check_precision(cache: FeatureCache, bundle: Bundle, engine: str) -> None:
    """Refuse a cache that holds embeddings of another precision than `engine` runs the bundle in.

    Raises:
        DatasetError: it does.
    """
    vision, audio = (bundle.precision(graph, engine) for graph in _ENCODERS)
    runs = vision if vision == audio else f"vision {vision}, audio {audio}"
    if cache.info.precision != runs:
        raise DatasetError(
            f"the feature cache {cache.path} was computed in {cache.info.precision} and {engine} runs the bundle "
            f"{bundle.path} in {runs}: its figures would not be those of the bundle. Make a cache with "
            "`ovavel train features --bundle`, or take this one as it is with --any-precision"
        )


def encode_clips(
    dataset: OVAVEBench,
    clips: Sequence[Clip],
    backend: Backend,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Encoded:
    """Run the encoders of `backend` over the media of `clips`, read ahead in threads.

    `progress` is called with the clips done.

    Raises:
        DatasetError: not one of the clips could be read.
    """
    size = 1 if backend.info.batch == 1 else 10  # on a GPU a whole clip at once
    whole: list[Clip] = []
    audio: list[NDArray[np.float32]] = []
    vision: list[NDArray[np.float32]] = []
    damaged: list[DamagedRecord] = []
    with closing(Encoder(backend)) as encoder, closing(_read_ahead(dataset, clips)) as reading:
        for done, (clip, windows) in enumerate(reading, 1):
            if isinstance(windows, DamagedClip):
                damaged.append(_record(clip, windows.kind, str(windows)))
            else:
                segments = [s for i in range(0, len(windows), size) for s in encoder.encode(windows[i : i + size])]
                audio.append(np.stack([s.audio for s in segments if s.audio is not None]))
                vision.append(np.stack([s.vision for s in segments if s.vision is not None]))
                whole.append(clip)
            progress(done)
    lost = {(record.split, record.name) for record in damaged}
    features = Features(
        clips=tuple(whole),
        audio=np.stack(audio) if audio else np.empty((0, 10, 0), np.float32),
        vision=np.stack(vision) if vision else np.empty((0, 10, 0), np.float32),
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
        raise DatasetError(f"nothing can be scored: {said}. `ovavel eval check-data` lists every clip")
    return Encoded(features, tuple(damaged))


def _read_ahead(dataset: OVAVEBench, clips: Sequence[Clip]) -> Generator[tuple[Clip, list[Window] | DamagedClip]]:
    """Clips in order with their ten windows, or why there are none."""
    waiting: deque[tuple[Clip, Future[list[Window]]]] = deque()
    coming = iter(clips)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ovavel-read") as pool:
        try:
            while True:
                while len(waiting) < _AHEAD and (clip := next(coming, None)) is not None:
                    waiting.append((clip, pool.submit(dataset.windows, clip)))
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


def score_protocol(
    protocol: Protocol,
    split: Split,
    head: Head,
    text: NDArray[np.float32],
) -> Result:
    """Decide on every clip and score the decisions.

    Args:
        protocol: how to decide.
        split: embeddings and truth of N clips.
        head: `Backend.head`; only the fused protocols ask it.
        text: (C, D) float32, unit norm, background last.
    """
    seen, truth, n_classes = split.seen, split.truth, len(text)
    if protocol in ("fused", "fused-positive"):
        kind: FusionKind = "published" if protocol == "fused" else "positive"
        labels = fused_labels(decide(deciding_head(head, kind), split.audio, split.vision, text).score)
        return Result(protocol=protocol, labels=labels, senses=None, rows=score_rows(labels, truth, seen, n_classes))
    named = text if protocol == "agreement" else text[:-1]
    vision, audio = (cosine_similarity(embeddings, named).argmax(axis=-1) for embeddings in (split.vision, split.audio))
    return Result(
        protocol=protocol,
        labels=agree_clip(vision, audio, n_classes - 1),
        senses=(vision, audio),
        rows=score_rows_agreement(vision, audio, truth, seen, n_classes),
    )
