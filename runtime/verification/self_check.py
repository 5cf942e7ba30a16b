"""A bundle checks itself against PyTorch, without PyTorch: every stage on its golden inputs, in under a minute.

Each stage is fed with what the stage before it *should* have given, so that one fault shows in one stage; the last
one, decision, goes the whole way from prepared windows. The first stage that is off is where to look.

Shapes: N inputs, D embedding size, C names with the background last, K clips of T seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend, HeadOutput
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.fusion import fused_labels, fused_score
from ovavel.runtime.graphs import Graph
from ovavel.runtime.hardware import cpu_features, device_name
from ovavel.runtime.manifest import Gate
from ovavel.runtime.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.verification.golden import Golden, to_float
from ovavel.runtime.verification.requirements import Requirement, requirement
from ovavel.runtime.vocabulary import Vocabulary, normalize_text

__all__ = [
    "GOLDEN_REFERENCE",
    "STAGES",
    "Progress",
    "SelfCheck",
    "Stage",
    "StageCheck",
    "check_preprocessing",
    "check_stages",
    "check_vocabulary",
    "check_within",
    "compare_embeddings",
    "embedding_failure",
    "graphs_to_check",
    "off_by",
    "self_check",
]

Stage: TypeAlias = Literal[
    "preprocess frame", "preprocess sound", "vision", "audio", "text", "vocabulary", "similarity", "score", "decision"
]
STAGES: tuple[Stage, ...] = (
    "preprocess frame",
    "preprocess sound",
    "vision",
    "audio",
    "text",
    "vocabulary",
    "similarity",
    "score",
    "decision",
)
"""In the order of a window's way."""

GOLDEN_REFERENCE = "golden outputs of PyTorch fp32"

FRAME_TOLERANCE = 0.016
"""One of 255 levels after normalisation: versions of Pillow differ by no more where they resize."""
SOUND_TOLERANCE = 1e-3
"""Of a log-mel value: versions of the FFT differ by less."""

_TEXTS = 16
"""How many golden names go through the text graph; they all take the same way, and each takes half a second there."""

Progress = Callable[[str, float], None]
"""Told what is compared now, and which share of all, in [0, 1], is done."""

Rows: TypeAlias = NDArray[np.float32]
"""(N, D) embeddings."""
Embed: TypeAlias = Callable[[NDArray[np.float32]], Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCheck:
    """What became of one stage."""

    stage: Stage
    told: str
    """What was measured, in a few words."""
    failure: str | None = None
    """What is off, how far, and on which input; None where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """A gate and the stages that it sums up."""

    gate: Gate
    stages: tuple[StageCheck, ...]
    seconds_s: float
    """How long it took."""

    @property
    def off(self) -> Stage | None:
        """The first stage that is off; None where none is."""
        return next((each.stage for each in self.stages if each.failure), None)


def graphs_to_check(bundle: Bundle, *, name: str = "onnxruntime", device: str = "cpu") -> tuple[Graph, ...]:
    """The graphs to open for a self-check by the backend `name` on `device`: those that anybody runs there.

    Names are embedded by ONNX Runtime on the CPU alone; an engine for them would be built for nothing.

    Raises:
        MissingExtraError: onnxruntime is to run them and is not installed.
    """
    from ovavel.runtime.backends.onnxruntime import auto_device

    wanted: tuple[Graph, ...] = ("vision", "audio", "head")
    if name == "onnxruntime" and (auto_device() if device == "auto" else device) == "cpu":
        wanted = ("vision", "audio", "text", "head")
    return tuple(graph for graph in wanted if graph in bundle.manifest.graphs)


def self_check(bundle: Bundle, backend: Backend, progress: Progress = lambda _what, _share: None) -> Gate:
    """Compare `backend` with the golden outputs in `bundle`. See `check_stages`."""
    return check_stages(bundle, backend, progress).gate


def check_stages(bundle: Bundle, backend: Backend, progress: Progress = lambda _what, _share: None) -> SelfCheck:
    """Compare every stage of `backend`, opened on `bundle`, with the golden outputs in the bundle.

    The text graph is compared where the backend was opened with it.

    Raises:
        BundleError: the bundle has no golden file, or a damaged one.
        DeviceError: the backend failed.
    """
    start_s = time.perf_counter()
    checker = _Checker(bundle, Golden.load(bundle), backend)
    stages = tuple(checker.run(progress))
    failures = tuple(f"{each.stage}: {each.failure}" for each in stages if each.failure)
    info = backend.info
    gate = Gate(
        engine=info.engine,
        precision=dict(info.precision),
        passed=not failures,
        reference=GOLDEN_REFERENCE,
        inputs=len(checker.golden.frames) + len(checker.golden.waveforms),
        min_cosine=checker.min_cosine,
        max_abs_difference=checker.max_abs_difference,
        decisions=checker.decisions,
        device=device_name(info.device),
        cpu_features=cpu_features() if info.device == "cpu" else (),
        versions=dict(info.versions),
        graphs_sha256=bundle.graphs_sha256(info.precision),
        failures=failures,
    )
    return SelfCheck(gate=gate, stages=stages, seconds_s=time.perf_counter() - start_s)


class _Checker:
    """One comparison; what it measured for the gate is in its fields."""

    def __init__(self, bundle: Bundle, golden: Golden, backend: Backend) -> None:
        self.golden = golden
        self.min_cosine: dict[Graph, float] = {}
        self.max_abs_difference: dict[Graph, float] = {}
        self.decisions = 0.0
        self._bundle = bundle
        self._backend = backend
        self._precision = backend.info.precision

    def run(self, progress: Progress) -> Iterator[StageCheck]:
        golden, backend = self.golden, self._backend
        sizes = sorted({1, backend.info.batch})  # a camera gives one window at a time, a file several
        windows = len(sizes) * (len(golden.frames) + len(golden.waveforms)) + min(_TEXTS, len(golden.names))

        def embed(stage: Stage, run: Embed, inputs: Collection[NDArray[np.float32]], size: int, done: int) -> Rows:
            return _batched(run, inputs, size, lambda more: progress(stage, (done + more) / windows))

        def embed_windows(stage: Stage, run: Embed, inputs: Collection[NDArray[np.float32]], done: int) -> list[Rows]:
            return [embed(stage, run, inputs, size, done + i * len(inputs)) for i, size in enumerate(sizes)]

        progress("preprocess frame", 0.0)
        yield from check_preprocessing(golden)
        frames = {name: golden.prepared_frame(name) for name in golden.frames}
        vision = embed_windows("vision", backend.vision, frames.values(), 0)
        yield self._embeddings("vision", vision, golden.vision, list(frames))
        done = len(sizes) * len(frames)
        audio = embed_windows("audio", backend.audio, golden.log_mels.values(), done)
        yield self._embeddings("audio", audio, golden.audio, list(golden.log_mels))
        if "text" in self._precision:
            done += len(sizes) * len(golden.log_mels)
            text = embed("text", backend.text, golden.tokens[:_TEXTS], 8, done)  # type: ignore[arg-type]  # int64
            yield self._text(text)
        yield check_vocabulary(golden, self._bundle.vocabulary)
        progress("decision", 1.0)
        frame, sound = golden.clips[..., 0], golden.clips[..., 1]
        output = backend.head(golden.audio[sound], golden.vision[frame], golden.text)
        yield self._similarity(output)
        yield self._score(output)
        scores = [backend.head(a[sound], v[frame], golden.text).score for a, v in zip(audio, vision, strict=True)]
        yield self._decision(scores)

    def _embeddings(
        self,
        graph: Literal["vision", "audio", "text"],
        ours: Sequence[Rows],
        theirs: Rows,
        names: Sequence[str],
    ) -> StageCheck:
        """Compare what each batch size gave, and keep the worst for each input."""
        cosines, aways = zip(*(compare_embeddings(each, theirs) for each in ours), strict=True)
        cosine, away = np.min(cosines, axis=0), np.max(aways, axis=0)
        self.min_cosine[graph], self.max_abs_difference[graph] = float(cosine.min()), float(away.max())
        told = f"{len(names)} inputs, cosine at least {cosine.min():.7f}, components at most {away.max():.1e} off"
        failure = embedding_failure(requirement(self._precision[graph]), cosine, away, names)
        return StageCheck(stage=graph, told=told, failure=failure)

    def _text(self, ours: Rows) -> StageCheck:
        golden = self.golden
        check = self._embeddings("text", [ours], golden.text[:_TEXTS], golden.names[:_TEXTS])
        found = self._bundle.tokenizer().encode(golden.names)
        odd = [name for name, a, b in zip(golden.names, found, golden.tokens, strict=True) if not np.array_equal(a, b)]
        if odd and not check.failure:
            return StageCheck(stage="text", told=check.told, failure=f"the tokenizer gives other tokens for {odd[0]!r}")
        return check

    def _similarity(self, output: HeadOutput) -> StageCheck:
        golden, limit = self.golden, requirement(self._precision["head"]).head_difference
        away = {
            "sound": off_by(output.audio_similarity, golden.audio_similarity),
            "sight": off_by(output.vision_similarity, golden.vision_similarity),
        }
        self.max_abs_difference["head"] = max(away.values())
        return check_within("similarity", away, limit, "in a similarity")

    def _score(self, output: HeadOutput) -> StageCheck:
        """The square root is infinitely steep at 0, so scores are compared with those of the *same* similarities."""
        fused = fused_score(output.audio_similarity, output.vision_similarity)
        away = {"the golden clips": off_by(output.score, fused)}
        return check_within("score", away, requirement(self._precision["head"]).head_difference, "in a score")

    def _decision(self, scores: Sequence[NDArray[np.float32]]) -> StageCheck:
        """Hold the (K, T, C) scores of each batch size to the golden decisions; a second counts if all decide alike."""
        golden = self.golden
        limit = min((requirement(each) for each in self._precision.values()), key=lambda each: each.min_cosine)
        clear = golden.lead >= limit.tie
        alike: NDArray[np.bool_] = np.all(
            [(fused_labels(score) == golden.labels) & np.isfinite(score).all(axis=-1) for score in scores], axis=0
        )
        self.decisions = float(alike[clear].mean()) if clear.any() else float(alike.mean())
        told = (
            f"{self.decisions:.1%} of {np.count_nonzero(clear)} seconds decided alike "
            f"({np.count_nonzero(~clear)} ties left out)"
        )
        failure = None
        if clear.any() and not (self.decisions >= limit.golden_decisions):
            failure = f"{self.decisions:.1%} of the seconds are decided alike, needs {limit.golden_decisions:.1%}"
        return StageCheck(stage="decision", told=told, failure=failure)


def check_preprocessing(golden: Golden) -> Iterator[StageCheck]:
    """Prepare the golden frames and waveforms, and compare: the stages "preprocess frame" and "preprocess sound"."""
    away = {name: off_by(prepare_frame(raw), golden.prepared_frame(name)) for name, raw in golden.frames.items()}
    yield check_within("preprocess frame", away, FRAME_TOLERANCE, "in a prepared frame")
    away = {
        name: off_by(prepare_waveform(to_float(raw)), golden.log_mels[name]) for name, raw in golden.waveforms.items()
    }
    yield check_within("preprocess sound", away, SOUND_TOLERANCE, "in a log-mel picture")


def check_vocabulary(golden: Golden, vocabulary: Vocabulary) -> StageCheck:
    """Names may come and go, but what is called as a golden name must point where that points."""
    known = {normalize_text(name): row for name, row in zip(golden.names, golden.text, strict=True)}
    both = [(i, name) for i, name in enumerate(vocabulary.names) if normalize_text(name) in known]
    told = f"{len(both)} of {len(golden.names)} golden names are in the vocabulary"
    if normalize_text(vocabulary.background) != normalize_text(golden.names[-1]):
        moved = f"the last name is {vocabulary.background!r}, and the background was {golden.names[-1]!r}"
        return StageCheck(stage="vocabulary", told=told, failure=moved)
    ours = np.stack([vocabulary.embeddings[i] for i, _ in both])
    theirs = np.stack([known[normalize_text(name)] for _, name in both])
    cosine, away = compare_embeddings(ours, theirs)
    failure = embedding_failure(requirement("fp32"), cosine, away, [name for _, name in both])
    return StageCheck(stage="vocabulary", told=told, failure=failure)


def compare_embeddings(
    ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare two times (N, D) embeddings, row by row.

    Returns:
        (N,) cosine similarities, -1 where a value of either is not finite, and (N,) largest differences of a
        component, 2 there: as far away as two unit vectors can be.
    """
    ours64, theirs64 = ours.astype(np.float64), theirs.astype(np.float64)
    finite: NDArray[np.bool_] = np.all(np.isfinite(ours64) & np.isfinite(theirs64), axis=1)
    ours64, theirs64 = (np.where(finite[:, None], each, 1.0) for each in (ours64, theirs64))
    norms = np.linalg.norm(ours64, axis=1) * np.linalg.norm(theirs64, axis=1)
    cosine = (ours64 * theirs64).sum(axis=1) / np.maximum(norms, 1e-30)
    away = np.abs(ours64 - theirs64).max(axis=1)
    return np.where(finite, cosine, -1.0), np.where(finite, away, 2.0)


def embedding_failure(
    limit: Requirement, cosine: NDArray[np.float64], away: NDArray[np.float64], names: Sequence[str]
) -> str | None:
    """Say which of the embeddings, (N,) figures and names, misses `limit` most; None: none does."""
    worst = int(cosine.argmin())
    if away[worst] == 2.0:
        return f"not finite (for {names[worst]})"
    if not (cosine[worst] >= limit.min_cosine):  # so that NaN fails
        return f"cosine {cosine[worst]:.6f}, needs {limit.min_cosine:g} (for {names[worst]})"
    worst = int(away.argmax())
    if limit.max_abs_difference is not None and not (away[worst] <= limit.max_abs_difference):
        return f"{away[worst]:.1e} off, at most {limit.max_abs_difference:.0e} is allowed (for {names[worst]})"
    return None


def off_by(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Largest difference; 2, as far as two similarities can be, where shapes differ or a value is not finite."""
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return 2.0
    return float(np.abs(ours.astype(np.float64) - theirs).max())


def check_within(stage: Stage, away: Mapping[str, float], limit: float, what: str) -> StageCheck:
    """Hold differences, by what they are of, to `limit`; `what` ends the sentence "0.3 off …"."""
    worst = max(away, key=lambda name: away[name])
    failure = None
    if not (away[worst] <= limit):
        failure = f"{away[worst]:.2g} off {what}, at most {limit:g} is allowed (for {worst})"
    return StageCheck(stage=stage, told=f"at most {away[worst]:.1e} off", failure=failure)


def _batched(
    embed: Embed, inputs: Iterable[NDArray[np.float32]], size: int, progress: Callable[[int], None]
) -> NDArray[np.float32]:
    """Embed `inputs` in batches of `size`, as the runtime does; returns (N, D)."""
    waiting = list(inputs)
    rows = []
    for start in range(0, len(waiting), size):
        progress(start)
        rows.append(embed(np.stack(waiting[start : start + size])))
    return np.concatenate(rows)
