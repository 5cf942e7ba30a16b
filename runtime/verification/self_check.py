"""Check every stage of a bundle against its golden inputs and PyTorch's outputs, without PyTorch, in under a minute.

Each stage gets the *expected* output of the stage before it, so that one fault shows in one stage; the last stage,
decision, runs the full pipeline from preprocessed windows. The first failed stage is where to look.

Shapes: N inputs, D embedding size, C names with the background last, K clips of T seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.system.progress import Progress, no_progress, part_of
from ovavel.runtime.types import Sense
from ovavel.runtime.verification.compare import (
    EmbeddingDifferences,
    Stage,
    StageCheck,
    check_embeddings,
    check_preprocessing,
    check_score,
    check_similarity,
    check_vocabulary,
    compare_embeddings,
    compare_heads,
    make_gate,
)
from ovavel.runtime.verification.golden import GOLDEN_REFERENCE, Golden
from ovavel.runtime.verification.requirements import loosest, requirement

__all__ = ["SelfCheck", "check_stages", "graphs_to_check", "self_check"]

_TEXTS = 16
"""How many golden names go through the text graph: all take the same path, at half a second each."""

Rows: TypeAlias = NDArray[np.float32]
"""(N, D) embeddings."""
Embed: TypeAlias = Callable[[NDArray[np.float32]], Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """A gate and the stages it summarizes."""

    gate: Gate
    stages: tuple[StageCheck, ...]
    seconds_s: float
    """Duration of the check."""

    @property
    def failed_stage(self) -> Stage | None:
        """The first stage that failed; None if all passed."""
        return next((each.stage for each in self.stages if each.failure), None)


def graphs_to_check(bundle: Bundle, *, name: str = "onnxruntime", device: str = "cpu") -> tuple[Graph, ...]:
    """Return the graphs to open for a self-check by the backend `name` on `device`: those that are used there.

    Names are only embedded by ONNX Runtime on the CPU; an engine for them would be wasted.

    Raises:
        MissingExtraError: onnxruntime should run them and is not installed.
    """
    from ovavel.runtime.backends.onnxruntime.backend import auto_device

    wanted: tuple[Graph, ...] = ("vision", "audio", "head")
    if name == "onnxruntime" and (auto_device() if device == "auto" else device) == "cpu":
        wanted = ("vision", "audio", *bundle.manifest.encoders.text_graphs, "head")
    return tuple(graph for graph in wanted if graph in bundle.manifest.graphs)


def self_check(bundle: Bundle, backend: Backend, progress: Progress = no_progress) -> Gate:
    """Compare `backend` with the golden outputs in `bundle`; see `check_stages`."""
    return check_stages(bundle, backend, progress).gate


def check_stages(bundle: Bundle, backend: Backend, progress: Progress = no_progress) -> SelfCheck:
    """Compare every stage of `backend`, opened on `bundle`, with the golden outputs in the bundle.

    The text graph is compared if the backend was opened with it.

    Raises:
        BundleError: the golden file is missing or damaged.
        DeviceError: the backend failed.
    """
    start_s = time.perf_counter()
    checker = _Checker(bundle, Golden.load(bundle), backend)
    stages = tuple(checker.run(progress))
    gate = make_gate(
        bundle,
        backend.info,
        stages,
        reference=GOLDEN_REFERENCE,
        inputs=len(checker.golden.frames) + len(checker.golden.waveforms),
        min_cosine=checker.min_cosine,
        max_abs_difference=checker.max_abs_difference,
        decisions=checker.decisions,
    )
    return SelfCheck(gate=gate, stages=stages, seconds_s=time.perf_counter() - start_s)


class _Checker:
    """One comparison; its fields hold the measurements for the gate."""

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
        sizes = sorted({1, backend.info.batch})  # a camera delivers one window at a time, a file several
        senses = [each for each in backend.encoders.text_senses if backend.encoders.of(each).text in self._precision]
        texts = min(_TEXTS, len(golden.names))
        windows = len(sizes) * (len(golden.frames) + len(golden.waveforms)) + len(senses) * texts

        def embed(stage: Stage, run: Embed, inputs: Collection[NDArray[np.float32]], size: int, done: int) -> Rows:
            return _batched(run, inputs, size, part_of(progress, done / windows, len(inputs) / windows), stage)

        def embed_windows(stage: Stage, run: Embed, inputs: Collection[NDArray[np.float32]], done: int) -> list[Rows]:
            return [embed(stage, run, inputs, size, done + i * len(inputs)) for i, size in enumerate(sizes)]

        progress("preprocess frame", 0.0)
        yield from check_preprocessing(golden, backend.encoders)
        frames = {name: golden.prepared_frame(name) for name in golden.frames}
        vision = embed_windows("vision", backend.vision, frames.values(), 0)
        yield self._embeddings("vision", vision, golden.vision, list(frames))
        done = len(sizes) * len(frames)
        audio = embed_windows("audio", backend.audio, golden.log_mels.values(), done)
        yield self._embeddings("audio", audio, golden.audio, list(golden.log_mels))
        done += len(sizes) * len(golden.log_mels)
        for number, sense in enumerate(senses):
            run: Any = partial(backend.text, sense=sense)
            tokens: Any = getattr(golden, f"{sense}_tokens")[:_TEXTS]  # of int64, unlike the others
            yield self._text(sense, embed("text", run, tokens, 8, done + number * texts))
        yield check_vocabulary(golden, self._bundle.vocabulary)
        progress("decision", 1.0)
        frame, sound = golden.clips[..., 0], golden.clips[..., 1]
        yield from self._head(backend.head(golden.audio[sound], golden.vision[frame], golden.text))
        scores = [backend.head(a[sound], v[frame], golden.text).score for a, v in zip(audio, vision, strict=True)]
        yield self._decision(scores)

    def _embeddings(
        self,
        graph: Graph,
        ours: Sequence[Rows],
        theirs: Rows,
        names: Sequence[str],
    ) -> StageCheck:
        """Compare the results of each batch size, and keep the worst for each input."""
        cosines, aways = zip(*(compare_embeddings(each, theirs) for each in ours), strict=True)
        found = EmbeddingDifferences(np.min(cosines, axis=0), np.max(aways, axis=0))
        self.min_cosine[graph], self.max_abs_difference[graph] = float(found.cosine.min()), float(found.away.max())
        stage: Stage = "vision" if graph == "vision" else "audio" if graph == "audio" else "text"
        return check_embeddings(stage, requirement(self._precision[graph]), found, names)

    def _text(self, sense: Sense, ours: Rows) -> StageCheck:
        golden, graph = self.golden, self._backend.encoders.of(sense).text
        check = self._embeddings(graph, [ours], golden.text.of(sense)[:_TEXTS], golden.names[:_TEXTS])
        found, tokens = self._bundle.tokenizer(sense).encode(golden.names), getattr(golden, f"{sense}_tokens")
        odd = [name for name, a, b in zip(golden.names, found, tokens, strict=True) if not np.array_equal(a, b)]
        if odd and not check.failure:
            return StageCheck(
                stage="text", summary=check.summary, failure=f"the tokenizer produces different tokens for {odd[0]!r}"
            )
        return check

    def _head(self, output: HeadOutput) -> Iterator[StageCheck]:
        golden, limit = self.golden, requirement(self._precision["head"])
        theirs = HeadOutput(golden.audio_similarity, golden.vision_similarity, golden.score)
        found = compare_heads(output, theirs, learned=self._bundle.manifest.fusion.decision == "learned")
        self.max_abs_difference["head"] = found.similarity
        yield check_similarity({"sound": found.audio_similarity, "sight": found.vision_similarity}, limit)
        yield check_score({"the golden clips": found.score}, limit)

    def _decision(self, scores: Sequence[NDArray[np.float32]]) -> StageCheck:
        """Check (K, T, C) scores of each batch size against the golden decisions; a second counts if all agree."""
        golden = self.golden
        limit = loosest(self._precision.values())
        clear = golden.lead >= limit.tie
        alike: NDArray[np.bool_] = np.all(
            [(fused_labels(score) == golden.labels) & np.isfinite(score).all(axis=-1) for score in scores], axis=0
        )
        self.decisions = float(alike[clear].mean()) if clear.any() else float(alike.mean())
        summary = (
            f"{self.decisions:.1%} of {np.count_nonzero(clear)} seconds agree "
            f"({np.count_nonzero(~clear)} ties excluded)"
        )
        failure = None
        if clear.any() and not (self.decisions >= limit.golden_decisions):
            failure = f"{self.decisions:.1%} of the seconds agree, needs {limit.golden_decisions:.1%}"
        return StageCheck(stage="decision", summary=summary, failure=failure)


def _batched(
    embed: Embed, inputs: Iterable[NDArray[np.float32]], size: int, progress: Progress, stage: Stage
) -> NDArray[np.float32]:
    """Embed `inputs` in batches of `size`, as the runtime does; returns (N, D)."""
    waiting = list(inputs)
    rows = []
    for start in range(0, len(waiting), size):
        progress(stage, start, len(waiting))
        rows.append(embed(np.stack(waiting[start : start + size])))
    return np.concatenate(rows)
