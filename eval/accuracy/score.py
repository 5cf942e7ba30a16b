"""Score a bundle, or a model that was asked, on OV-AVEBench: encoders (or a feature cache), head, and measures.

A decision is the runtime's own: `Backend.head` over the ten segments of a clip, arg max, and background where no class
has any evidence, as `Localizer.score` decides on a clip.

Shapes: N clips, T segments per clip (ten), D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.detection import Detection
from ovavel.eval.accuracy.llm.figures import LLMRun
from ovavel.eval.accuracy.llm.prompt import Question
from ovavel.eval.accuracy.llm.run import Asked
from ovavel.eval.accuracy.metrics import Scores, each_agreement, each_clip, right, score_agreement, score_clips
from ovavel.eval.accuracy.protocols import (
    Rows,
    decide,
    fused_labels,
    score_rows,
    score_rows_agreement,
    too_damaged,
    why_not_published,
)
from ovavel.eval.datasets.dataset import Clip, Truth
from ovavel.eval.datasets.encode import DamagedRecord, what_ran
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.splits import Split
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.fusion import agree_clip, cosine_similarity
from ovavel.runtime.pipeline.localizer import Head, deciding_head

__all__ = [
    "ASKED",
    "Protocol",
    "Report",
    "Result",
    "score_asked",
    "score_protocol",
    "score_rule",
]

Protocol = Literal[
    "fused", "fused-positive", "agreement", "agreement-without-other", "llm", "llm-sight-only", "llm-sound-only"
]
"""How a decision is made (docs/method.md, Decision): "fused" by the bundle's head, "fused-positive" without the
classes that a sense speaks against; the agreement ones are training-free, from the embeddings as they are, with the
background among the classes or without it. "llm": by a model that was asked, where it names one class as both seen and
heard; its controls had stills or sound alone."""

ASKED: Mapping[str, Question] = MappingProxyType({"llm": "both", "llm-sight-only": "sight", "llm-sound-only": "sound"})
"""Protocols of a model that was asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """Decisions and scores of one protocol, or of one decision rule."""

    protocol: str
    """A `Protocol`, or "rule " and the name of a decision rule."""
    labels: NDArray[np.intp]
    """(N, T) decisions."""
    senses: tuple[NDArray[np.intp], NDArray[np.intp]] | None
    """(N, T) arg max classes of vision and audio in an agreement protocol; None in the fused one."""
    rows: Rows
    rule: Rule | None = None
    """With its parameters; None: a protocol."""
    scores: NDArray[np.float32] | None = None
    """(N, T, C) scores that were decided on; None where there are decisions alone."""

    def tracks(self, n_classes: int) -> NDArray[np.float32]:
        """(N, T, C) scores of every class; of decisions alone, 1 for the class that was decided on."""
        if self.scores is not None:
            return self.scores
        return np.eye(n_classes, dtype=np.float32)[self.labels]

    def score(self, keep: NDArray[np.bool_] | slice, truth: Truth, n_classes: int) -> Scores:
        """Score the clips `keep` alone."""
        if self.senses is None:
            return score_clips(self.labels[keep], truth[keep], n_classes)
        vision, audio = self.senses
        return score_agreement(vision[keep], audio[keep], truth[keep], n_classes)

    def each(self, truth: Truth, n_classes: int) -> NDArray[np.float64]:
        """(N, 4): Acc., Seg., Eve. and Avg. of each clip by itself."""
        if self.senses is None:
            return each_clip(self.labels, truth, n_classes)
        return each_agreement(*self.senses, truth, n_classes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Result of `ovavel eval score`."""

    root: str
    split: str
    dataset_fingerprint: str
    names: tuple[str, ...]
    """C names."""
    clips: tuple[Clip, ...]
    """The N clips that are scored."""
    damaged: tuple[DamagedRecord, ...]
    """The clips of the split that are not."""
    truth: Truth
    """(N, T) class indices; (N, T, C) bool where events may overlap."""
    results: tuple[Result, ...]
    """One for each protocol asked for."""
    bundle: Bundle | None = None
    """None: no bundle was scored."""
    backend: BackendInfo | None = None
    """What ran the bundle."""
    cache: FeatureCache | None = None
    """Where the embeddings come from; None: from the media, through the backend."""
    llm: LLMRun | None = None
    """How a model was asked; None: none was."""
    detection: Detection | None = None
    """mAP over whole recordings; None: the data set has none."""

    @property
    def one_truth(self) -> NDArray[np.intp]:
        """(N, T) one true class a second, to be shown: of several, the one that the first result decided on."""
        if self.truth.ndim == 2:
            return self.truth.astype(np.intp, copy=False)
        labels = self.results[0].labels
        return np.where(right(labels, self.truth), labels, self.truth.argmax(axis=2))

    @property
    def counted(self) -> str:
        """Number of scored and damaged clips, in words."""
        kinds = Counter(record.kind for record in self.damaged)
        reasons = ", ".join(
            f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        )
        why = f"; {len(self.damaged)} damaged: {reasons}" if self.damaged else ""
        return f"{len(self.clips)} of {len(self.clips) + len(self.damaged)} clips{why}"

    @property
    def ran(self) -> str:
        """Description of what computed embeddings and decisions, and of what was asked."""
        parts = [what_ran(self.backend, self.cache)] if self.backend else []
        return " ".join([*parts, *(self.llm.remarks() if self.llm else ())])

    @property
    def as_published(self) -> bool:
        """Whether this is the split that the published figures are of, as far as its counts show, and almost whole."""
        return not self.why_not_published

    @property
    def why_not_published(self) -> str:
        """Why no published figures are shown beside these; empty if they are."""
        scored, damaged = len(self.clips), len(self.damaged)
        return why_not_published(self.split, len(self.names), scored + damaged) or too_damaged(
            self.split, scored, damaged
        )


def score_asked(asked: Asked, truth: Truth, n_classes: int) -> tuple[Result, ...]:
    """Score what a model said about N clips, of which `truth` (N, T) has the class indices."""
    seen = np.array([clip.seen for clip in asked.clips])
    return tuple(
        Result(protocol=protocol, labels=labels, senses=None, rows=score_rows(labels, truth, seen, n_classes))
        for protocol, question in ASKED.items()
        if (labels := asked.labels.get(question)) is not None
    )


def score_protocol(
    protocol: Protocol,
    split: Split,
    head: Head,
    text: TextEmbeddings,
) -> Result:
    """Decide on every clip and score the decisions.

    Args:
        protocol: how to decide.
        split: embeddings and truth of N clips.
        head: `Backend.head`; only the fused protocols ask it.
        text: C embeddings for each sense, float32, unit norm, background last.
    """
    seen, truth, n_classes = split.seen, split.truths, len(text)
    if protocol in ("fused", "fused-positive"):
        rule = Rule(kind="published" if protocol == "fused" else "positive")
        scores = decide(deciding_head(head, rule), split.audio, split.vision, text).score
        return _scored(protocol, scores, split, None)
    named = text if protocol == "agreement" else text[:-1]
    vision = cosine_similarity(split.vision, named.vision).argmax(axis=-1)
    audio = cosine_similarity(split.audio, named.audio).argmax(axis=-1)
    return Result(
        protocol=protocol,
        labels=agree_clip(vision, audio, n_classes - 1),
        senses=(vision, audio),
        rows=score_rows_agreement(vision, audio, truth, seen, n_classes),
    )


def score_rule(rule: Rule, scores: NDArray[np.float32], split: Split) -> Result:
    """Score what a decision rule decides by its `scores` (N, T, C) on the clips of `split`."""
    return _scored(f"rule {rule.name}", scores, split, rule)


def _scored(protocol: str, scores: NDArray[np.float32], split: Split, rule: Rule | None) -> Result:
    labels = fused_labels(scores)
    rows = score_rows(labels, split.truths, split.seen, scores.shape[-1])
    return Result(protocol=protocol, labels=labels, senses=None, rows=rows, rule=rule, scores=scores)
