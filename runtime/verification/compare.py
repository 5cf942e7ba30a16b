"""Compare results with PyTorch's, check them against the requirements, and summarize them in a gate.

All comparisons use these functions: at export, in the self-check of a bundle, and when two backends run the same media.

Shapes: N inputs, D embedding size, C names with the background last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import SENSES, Encoders, Graph
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.bundle.vocabulary import Vocabulary, normalize_text
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.pipeline.preprocess import preparations
from ovavel.runtime.system.hardware import cpu_features, device_name
from ovavel.runtime.verification.golden import Golden, to_float
from ovavel.runtime.verification.requirements import Requirement, requirement

__all__ = [
    "FURTHEST",
    "STAGES",
    "EmbeddingDifferences",
    "HeadDifferences",
    "Stage",
    "StageCheck",
    "check_embeddings",
    "check_preprocessing",
    "check_score",
    "check_similarity",
    "check_vocabulary",
    "compare_embeddings",
    "compare_heads",
    "embedding_failure",
    "make_gate",
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
"""In pipeline order."""

FURTHEST = 2.0
"""The largest possible difference of two unit vectors' components, or of two similarities; used for non-finite values
and mismatched shapes."""

FRAME_TOLERANCE = 0.016
"""One of 255 levels after normalization: resizing differs by no more between versions of Pillow."""
SOUND_TOLERANCE = 1e-3
"""For log-mel values: FFT versions differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCheck:
    """Result of one stage."""

    stage: Stage
    summary: str
    """The measurements, in a few words."""
    failure: str | None = None
    """What differs, by how much, and on which input; None if the stage passed."""


class EmbeddingDifferences(NamedTuple):
    """Differences of N embeddings from the reference's."""

    cosine: NDArray[np.float64]
    """(N,) cosine similarities; -1 where either embedding has a non-finite value."""
    away: NDArray[np.float64]
    """(N,) largest component difference; `FURTHEST` where either has a non-finite value."""


class HeadDifferences(NamedTuple):
    """Largest differences of a head's outputs; `FURTHEST` where shapes differ or a value is not finite."""

    audio_similarity: float
    vision_similarity: float
    score: float
    """Compared with the fusion of the head's own similarities: the square root is infinitely steep at 0, so near a
    similarity of 0 rounding makes the scores of two correct heads differ by more than any useful tolerance. A learned
    fusion has no such formula: its scores are compared with the reference's."""

    @property
    def similarity(self) -> float:
        """The larger of the two senses' differences."""
        return max(self.audio_similarity, self.vision_similarity)


def check_preprocessing(golden: Golden, encoders: Encoders) -> Iterator[StageCheck]:
    """Prepare the golden frames and waveforms, and compare: the stages "preprocess frame" and "preprocess sound".

    Raises:
        BundleError: the `encoders` want a preprocessing that this ovavel does not do.
    """
    prepare = {sense: each.prepare for sense, each in preparations(encoders).items()}
    away = {name: _off_by(prepare["vision"](raw), golden.prepared_frame(name)) for name, raw in golden.frames.items()}
    yield _check_within("preprocess frame", away, FRAME_TOLERANCE, "in a prepared frame")
    away = {
        name: _off_by(prepare["audio"](to_float(raw)), golden.log_mels[name]) for name, raw in golden.waveforms.items()
    }
    yield _check_within("preprocess sound", away, SOUND_TOLERANCE, "in a log-mel picture")


def check_vocabulary(golden: Golden, vocabulary: Vocabulary) -> StageCheck:
    """Check that names shared with the golden file have its embeddings; other names may be added or removed."""
    known = {normalize_text(name): row for row, name in enumerate(golden.names)}
    both = [(i, name) for i, name in enumerate(vocabulary.names) if normalize_text(name) in known]
    summary = f"{len(both)} of {len(golden.names)} golden names are in the vocabulary"
    if normalize_text(vocabulary.background) != normalize_text(golden.names[-1]):
        moved = f"the last name is {vocabulary.background!r}, and the background was {golden.names[-1]!r}"
        return StageCheck(stage="vocabulary", summary=summary, failure=moved)
    names = [name for _, name in both]
    ours = vocabulary.embeddings[[i for i, _ in both]]
    exported = golden.text if golden.named is None else golden.named
    theirs = exported[[known[normalize_text(name)] for name in names]]
    failure = None
    for sense in SENSES:
        found = compare_embeddings(ours.of(sense), theirs.of(sense))
        failure = failure or embedding_failure(requirement("fp32"), found, names)
    return StageCheck(stage="vocabulary", summary=summary, failure=failure)


def compare_embeddings(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> EmbeddingDifferences:
    """Compare two (N, D) arrays row by row in float64; a shape mismatch counts as non-finite."""
    if ours.shape != theirs.shape:
        return EmbeddingDifferences(np.full(len(theirs), -1.0), np.full(len(theirs), FURTHEST))
    ours64, theirs64 = ours.astype(np.float64), theirs.astype(np.float64)
    finite: NDArray[np.bool_] = np.all(np.isfinite(ours64) & np.isfinite(theirs64), axis=1)
    ours64, theirs64 = (np.where(finite[:, None], each, 1.0) for each in (ours64, theirs64))
    norms = np.linalg.norm(ours64, axis=1) * np.linalg.norm(theirs64, axis=1)
    cosine = (ours64 * theirs64).sum(axis=1) / np.maximum(norms, 1e-30)
    away = np.abs(ours64 - theirs64).max(axis=1)
    return EmbeddingDifferences(np.where(finite, cosine, -1.0), np.where(finite, away, FURTHEST))


def compare_heads(ours: HeadOutput, theirs: HeadOutput, *, learned: bool = False) -> HeadDifferences:
    """Compare the outputs of two heads for the same embeddings; `learned`: their fusion is learned."""
    fused = theirs.score if learned else fused_score(ours.audio_similarity, ours.vision_similarity)
    return HeadDifferences(
        audio_similarity=_off_by(ours.audio_similarity, theirs.audio_similarity),
        vision_similarity=_off_by(ours.vision_similarity, theirs.vision_similarity),
        score=_off_by(ours.score, fused),
    )


def embedding_failure(limit: Requirement, found: EmbeddingDifferences, names: Sequence[str]) -> str | None:
    """Describe the embedding that misses `limit` by most, by its name in `names`; None if all N meet it."""
    cosine, away = found
    worst = int(cosine.argmin())
    if away[worst] == FURTHEST:
        return f"not finite (for {names[worst]})"
    if not (cosine[worst] >= limit.min_cosine):  # so that NaN fails
        return f"cosine {cosine[worst]:.6f}, needs {limit.min_cosine:g} (for {names[worst]})"
    worst = int(away.argmax())
    if limit.max_abs_difference is not None and not (away[worst] <= limit.max_abs_difference):
        return f"differs by {away[worst]:.1e}, at most {limit.max_abs_difference:.0e} is allowed (for {names[worst]})"
    return None


def check_embeddings(
    stage: Stage, limit: Requirement, found: EmbeddingDifferences, names: Sequence[str], *, of: str = "inputs"
) -> StageCheck:
    """Check the embeddings of N inputs, called `names`, against `limit`; `of` says what the inputs are."""
    summary = f"{len(names)} {of}, cosine at least {found.cosine.min():.7f}, components within {found.away.max():.1e}"
    return StageCheck(stage=stage, summary=summary, failure=embedding_failure(limit, found, names))


def check_similarity(away: Mapping[str, float], limit: Requirement) -> StageCheck:
    """Check differences of similarities, by input, against `limit`."""
    return _check_within("similarity", away, limit.head_difference, "in a similarity")


def check_score(away: Mapping[str, float], limit: Requirement) -> StageCheck:
    """Check how scores differ from what they should be (`HeadDifferences.score`), by input, against `limit`."""
    return _check_within("score", away, limit.head_difference, "in a score")


def make_gate(
    bundle: Bundle,
    info: BackendInfo,
    stages: Iterable[StageCheck],
    *,
    reference: str,
    inputs: int,
    min_cosine: Mapping[Graph, float],
    max_abs_difference: Mapping[Graph, float],
    decisions: float,
) -> Gate:
    """Summarize a comparison of the engine in `info` on this machine's device; see `Gate` for the figures."""
    failures = tuple(f"{each.stage}: {each.failure}" for each in stages if each.failure)
    return Gate(
        engine=info.engine,
        precision=dict(info.precision),
        passed=not failures,
        reference=reference,
        inputs=inputs,
        min_cosine=dict(min_cosine),
        max_abs_difference=dict(max_abs_difference),
        decisions=decisions,
        device=device_name(info.device),
        cpu_features=cpu_features() if info.device == "cpu" else (),
        versions=dict(info.versions),
        graphs_sha256=bundle.graphs_sha256(info.precision),
        failures=failures,
    )


def _off_by(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Largest difference; `FURTHEST` where shapes differ or a value is not finite."""
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return FURTHEST
    return float(np.abs(ours.astype(np.float64) - theirs).max())


def _check_within(stage: Stage, away: Mapping[str, float], limit: float, what: str) -> StageCheck:
    """Check differences, by input, against `limit`; `what` completes "differs by 0.3 …" in the message."""
    worst = max(away, key=lambda name: away[name])
    failure = None
    if not (away[worst] <= limit):
        failure = f"differs by {away[worst]:.2g} {what}, at most {limit:g} is allowed (for {worst})"
    return StageCheck(stage=stage, summary=f"differs by at most {away[worst]:.1e}", failure=failure)
