"""Two backends on the same windows, stage by stage and decision by decision (docs/parity.md).

One after the other, so that only one of them is in memory. Each stage but the last is fed with the reference's own
outputs of the stage before, so that one fault shows in one stage.

Shapes: D embedding size, C names with the background last, T seconds of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.metrics import Scores
from ovavel.eval.parity_clips import (
    ClipEmbeddings,
    Clips,
    DatasetClips,
    adversarial_frames,
    adversarial_waveforms,
    encode_adversarial,
)
from ovavel.eval.parity_figures import Decisions, EmbeddingFigures, Place, compare_decisions, compare_graph
from ovavel.eval.texts import embed_texts
from ovavel.runtime.backends import Backend, BackendInfo, Graph, HeadOutput, open_backend
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.errors import UsageError
from ovavel.runtime.fusion import fused_score
from ovavel.runtime.golden import GOLDEN, Golden
from ovavel.runtime.hardware import device_name
from ovavel.runtime.manifest import Gate
from ovavel.runtime.requirements import Requirement, requirement
from ovavel.runtime.samples import sample_texts
from ovavel.runtime.self_check import (
    Stage,
    StageCheck,
    check_preprocessing,
    check_vocabulary,
    check_within,
    embedding_failure,
    off_by,
)
from ovavel.runtime.types import Sense
from ovavel.runtime.vocabulary import normalize_text

__all__ = ["PYTORCH", "Choice", "ParityReport", "Side", "compare_backends"]

PYTORCH = "PyTorch fp32"

Tell = Callable[[str, float], None]
"""Told what runs now, and the seconds of media that it has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A backend to be opened."""

    bundle: Bundle
    backend: str = "onnxruntime"
    device: str = "auto"
    precision: str | None = None
    threads: int | None = None
    options: Mapping[str, Any]
    """Further options of the backend: `weights` and `head` of PyTorch."""

    def open(self, graphs: Sequence[Graph]) -> Backend:
        """Open it with these graphs; see `open_backend`."""
        return open_backend(
            self.bundle,
            name=self.backend,
            device=self.device,
            threads=self.threads,
            graphs=graphs,
            precision=self.precision,
            **self.options,
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D): what this side makes of `texts`: PyTorch from its weights, a bundle from its vocabulary or graph."""
        if self.backend != "torch":
            return embed_texts(self.bundle, texts, threads=self.threads)
        return self.run_text(texts)

    def run_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D): `texts` through the text encoder itself, whatever the vocabulary holds."""
        # Text stays in fp32, and engines for GPUs need not have it: vocabularies are made on the CPU.
        backend = (
            self.open(("text",))
            if self.backend == "torch"
            else open_backend(self.bundle, device="cpu", threads=self.threads, graphs=("text",))
        )
        try:
            tokens = self.bundle.tokenizer().encode(texts)
            return np.concatenate([backend.text(row[None]) for row in tokens])
        finally:
            backend.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """What one backend made of everything."""

    info: BackendInfo
    frames: NDArray[np.float32]
    """(N, D) of the adversarial frames."""
    waveforms: NDArray[np.float32]
    """(N, D) of the adversarial waveforms."""
    clips: tuple[ClipEmbeddings, ...]
    text: NDArray[np.float32]
    """(C, D): the names that are decided on."""
    outputs: tuple[HeadOutput, ...]
    """Of each clip: (T, C)."""
    given: tuple[HeadOutput, ...] = ()
    """The head on the reference's embeddings, clip by clip."""

    @property
    def told(self) -> str:
        """What ran, in a few words."""
        if self.info.engine == "torch":
            return f"PyTorch {self.info.precision['vision']}"
        precisions = dict.fromkeys(self.info.precision[graph] for graph in ("vision", "audio"))
        return f"{self.info.engine} {'/'.join(precisions)}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParityReport:
    """All that `ovavel eval parity` finds out."""

    bundle: Bundle
    reference: str
    """What the candidate is compared with, in a few words."""
    candidate: str
    clips: str
    """What they were compared on, in a few words."""
    names: tuple[str, ...]
    embeddings: tuple[EmbeddingFigures, ...]
    decisions: Decisions
    stages: tuple[StageCheck, ...]
    gate: Gate
    candidate_info: BackendInfo

    @property
    def off(self) -> Stage | None:
        """The first stage that is off; None where none is."""
        return next((each.stage for each in self.stages if each.failure), None)


def compare_backends(
    reference: Choice, candidate: Choice, clips: Clips, *, tell: Tell = lambda _what, _done_s: None
) -> ParityReport:
    """Run both on `clips` and on adversarial inputs, and compare.

    Raises:
        UsageError: the two make embeddings of different sizes.
        DatasetError, MediaError, BundleError, CheckpointError, DeviceError: what cannot be read or run, and why.
    """
    sizes = [each.bundle.manifest.embedding_size for each in (reference, candidate)]
    if sizes[0] != sizes[1]:
        raise UsageError(f"the reference makes embeddings of size {sizes[0]} and the candidate of {sizes[1]}")
    if _same(reference, candidate):
        raise UsageError(
            "this would compare a backend with itself; give --weights for PyTorch, another --precision, --device or "
            "--backend, or a --reference-bundle"
        )
    vocabulary = candidate.bundle.vocabulary
    labelled = isinstance(clips, DatasetClips)
    names = clips.dataset.names if isinstance(clips, DatasetClips) else vocabulary.names
    theirs = _run(reference, clips, names, tell)
    ours = _run(candidate, clips, names, tell, theirs)
    places = [[Place(clip.name, second) for second in clip.seconds] for clip in theirs.clips]
    flat = [place for each in places for place in each]
    seen, heard = ([*map(Place, each), *flat] for each in (adversarial_frames(), adversarial_waveforms()))
    figures = [
        compare_graph("vision", _all(ours, "vision"), _all(theirs, "vision"), seen),
        compare_graph("audio", _all(ours, "audio"), _all(theirs, "audio"), heard),
    ]
    tell("comparing texts", 0.0)
    if all("text" in each.bundle.manifest.graphs or each.backend == "torch" for each in (reference, candidate)):
        texts = sample_texts(vocabulary.names)
        told = [Place(repr(text[:30])) for text in texts]
        figures.append(compare_graph("text", candidate.run_text(texts), reference.run_text(texts), told))
    truth = clips.truth([clip.name for clip in theirs.clips]) if isinstance(clips, DatasetClips) and labelled else None
    decisions = compare_decisions(ours.outputs, theirs.outputs, places, names, truth)
    stages = tuple(_stages(reference, candidate, ours, theirs, figures, decisions, places))
    return ParityReport(
        bundle=candidate.bundle,
        reference=theirs.told,
        candidate=ours.told,
        clips=clips.told,
        names=tuple(names),
        embeddings=tuple(figures),
        decisions=decisions,
        stages=stages,
        candidate_info=ours.info,
        gate=_gate(candidate.bundle, ours, theirs, figures, decisions, stages),
    )


def _same(reference: Choice, candidate: Choice) -> bool:
    """Whether both are the same graphs on the same engine."""
    if "torch" in (reference.backend, candidate.backend) or reference.bundle.sha256 != candidate.bundle.sha256:
        return False
    found = []
    for each in (reference, candidate):
        backend = each.open(("head",))
        backend.close()
        engine = backend.info.engine
        found.append((engine, [each.bundle.precision(graph, engine, each.precision) for graph in ("vision", "audio")]))
    return found[0] == found[1]


def _run(choice: Choice, clips: Clips, names: Sequence[str], tell: Tell, reference: Side | None = None) -> Side:
    """Take one backend through everything; with a `reference`, its head is run on that one's embeddings too."""
    tell("embedding the names", 0.0)
    text = choice.embed(names)
    tell("loading the graphs", 0.0)
    backend = choice.open(("vision", "audio", "head"))
    try:
        backend.warm_up()
        told = f"{backend.info.engine} {backend.info.precision['vision']}"
        tell(f"{told}: adversarial inputs", 0.0)
        frames, waveforms = encode_adversarial(backend)
        encoded = clips.encode(backend, lambda done_s: tell(told, done_s))
        outputs = [_head(backend, clip.audio, clip.vision, text) for clip in encoded]
        given = (
            [_head(backend, clip.audio, clip.vision, reference.text) for clip in reference.clips] if reference else []
        )
    finally:
        backend.close()
    return Side(
        info=backend.info,
        frames=frames,
        waveforms=waveforms,
        clips=tuple(encoded),
        text=text,
        outputs=tuple(outputs),
        given=tuple(given),
    )


def _head(
    backend: Backend, audio: NDArray[np.float32], vision: NDArray[np.float32], text: NDArray[np.float32]
) -> HeadOutput:
    return HeadOutput(*(rows[0] for rows in backend.head(audio[None], vision[None], text)))


def _all(side: Side, sense: Sense) -> NDArray[np.float32]:
    """All embeddings of one side, the adversarial inputs first."""
    first = side.frames if sense == "vision" else side.waveforms
    return np.concatenate([first, *(getattr(clip, sense) for clip in side.clips)])


def _stages(
    reference: Choice,
    candidate: Choice,
    ours: Side,
    theirs: Side,
    figures: Sequence[EmbeddingFigures],
    decisions: Decisions,
    places: Sequence[Sequence[Place]],
) -> Iterator[StageCheck]:
    """Hold everything to what the candidate's precision requires, in the order of a window's way."""
    golden = Golden.load(candidate.bundle) if GOLDEN in candidate.bundle.manifest.files else None
    if golden:
        yield from check_preprocessing(golden)
    precision = ours.info.precision
    for each in figures:
        limit = requirement("fp32" if each.graph == "text" else precision[each.graph])
        told = f"{len(each.places)} inputs, cosine at least {each.cosine.min():.7f}, {each.away.max():.1e} off at most"
        failure = embedding_failure(limit, each.cosine, each.away, [str(place) for place in each.places])
        yield StageCheck(stage=each.graph, told=told, failure=failure)  # type: ignore[arg-type]  # never the head
    yield _vocabulary(golden, reference, candidate)
    limit = requirement(precision["head"])
    heads = list(zip(ours.given, theirs.outputs, places, strict=True))
    away = {
        str(where[0]): max(
            off_by(a.audio_similarity, b.audio_similarity), off_by(a.vision_similarity, b.vision_similarity)
        )
        for a, b, where in heads
    }
    yield check_within("similarity", away, limit.head_difference, "in a similarity")
    away = {
        str(where[0]): off_by(a.score, fused_score(a.audio_similarity, a.vision_similarity)) for a, _, where in heads
    }
    yield check_within("score", away, limit.head_difference, "in a score")
    yield _decision(decisions, _loosest(precision))


def _vocabulary(golden: Golden | None, reference: Choice, candidate: Choice) -> StageCheck:
    """The names of the candidate's vocabulary must point where the reference says they do."""
    vocabulary = candidate.bundle.vocabulary
    found = check_vocabulary(golden, vocabulary) if golden else None
    if found and found.failure:
        return found
    names = vocabulary.names if len(vocabulary) <= 128 else (*vocabulary.names[:127], vocabulary.background)
    rows = vocabulary.embeddings if len(vocabulary) <= 128 else vocabulary.embeddings[[*range(127), -1]]
    figures = compare_graph("text", rows, reference.embed(names), [Place(name) for name in names])
    told = f"{len(names)} names, cosine at least {figures.cosine.min():.7f}, {figures.away.max():.1e} off at most"
    theirs = reference.bundle.vocabulary.background
    if normalize_text(vocabulary.background) != normalize_text(theirs):
        moved = f"the last name is {vocabulary.background!r}, and the reference's background is {theirs!r}"
        return StageCheck(stage="vocabulary", told=told, failure=moved)
    failure = embedding_failure(requirement("fp32"), figures.cosine, figures.away, names)
    return StageCheck(stage="vocabulary", told=told, failure=failure)


def _decision(decisions: Decisions, limit: Requirement) -> StageCheck:
    told = f"{decisions.alike:.2%} of {decisions.seconds} seconds decided alike"
    if limit.decisions is not None and decisions.alike < limit.decisions:
        return StageCheck(stage="decision", told=told, failure=f"{told}, needs {limit.decisions:.1%}")
    for name, ours, theirs in zip(Scores._fields, decisions.candidate, decisions.reference, strict=True):
        if ours < limit.measures * theirs:
            lost = (
                f"{name.capitalize()}. {ours:.2%} is {ours / theirs:.1%} of the reference's, needs {limit.measures:.0%}"
            )
            return StageCheck(stage="decision", told=told, failure=lost)
    return StageCheck(stage="decision", told=told)


def _loosest(precision: Mapping[Graph, str]) -> Requirement:
    return min((requirement(each) for each in precision.values()), key=lambda each: each.min_cosine)


def _gate(
    bundle: Bundle,
    ours: Side,
    theirs: Side,
    figures: Sequence[EmbeddingFigures],
    decisions: Decisions,
    stages: Sequence[StageCheck],
) -> Gate:
    info = ours.info
    failures = tuple(f"{each.stage}: {each.failure}" for each in stages if each.failure)
    given = zip(ours.given, theirs.outputs, strict=True)
    return Gate(
        engine=info.engine,
        precision=dict(info.precision),
        passed=not failures,
        reference=theirs.told,
        inputs=sum(len(each.places) for each in figures if each.graph != "text"),
        min_cosine={each.graph: float(each.cosine.min()) for each in figures},
        max_abs_difference={
            **{each.graph: float(each.away.max()) for each in figures},
            "head": max(
                max(off_by(a.audio_similarity, b.audio_similarity), off_by(a.vision_similarity, b.vision_similarity))
                for a, b in given
            ),
        },
        decisions=decisions.alike,
        device=device_name(info.device),
        versions=dict(info.versions),
        graphs_sha256=bundle.graphs_sha256(info.precision),
        failures=failures,
    )
