"""OV-AVEBench's table: scores of seen, unseen and all classes, the published figures, decisions on many clips.

Shapes: N clips, T segments per clip (ten), D embedding size, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import AnyTruth, Scores, each_agreement, each_clip, mean_scores
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_labels, fused_score
from ovavel.runtime.pipeline.localizer import Head

__all__ = [
    "PUBLISHED",
    "Rows",
    "decide",
    "fused_labels",
    "score_rows",
    "score_rows_agreement",
    "too_damaged",
    "why_not_published",
    "without_head",
]


class Rows(NamedTuple):
    """Scores of the clips of seen classes, of unseen classes, and of all of them."""

    seen: Scores | None
    """None where there is no such clip."""
    unseen: Scores | None
    """None where there is no such clip."""
    total: Scores


class Published(NamedTuple):
    """A published result on the test split."""

    figures: tuple[tuple[float | None, ...], ...]
    """Acc, Seg, Eve and Avg, in [0, 1], of seen, unseen and all clips; None where a figure is not known here."""
    source: str
    """Where the figures were read."""

    @property
    def rows(self) -> Rows | None:
        """All twelve figures; None where some are not known here."""
        seen, unseen, total = ([value for value in part if value is not None] for part in self.figures)
        whole = len(seen) == len(unseen) == len(total) == len(Scores._fields)
        return Rows(Scores(*seen), Scores(*unseen), Scores(*total)) if whole else None

    @property
    def is_system(self) -> bool:
        """Whether it is a system of its own, with all figures over all clips, and not an ablation."""
        return None not in self.figures[-1]

    @property
    def total_avg(self) -> float:
        """Avg over all clips, which is known of every result."""
        value = self.figures[-1][-1]
        assert value is not None
        return value


PAPER = "Zhou et al., CVPR 2025 (arXiv 2411.11278)"
NOTE = "a note on the paper by others; it was not read in the paper itself"
LATER = "a note on later systems by others; it was not read in the papers themselves"
AV2A, CUERATOR, COMPLEX = (f"{name}, {LATER}" for name in ("arXiv 2503.13693", "no number known", "arXiv 2610.11846"))


def _row(seen: str, unseen: str, total: str, source: str = f"{PAPER}, Table 2") -> Published:
    parts = (part.split() for part in (seen, unseen, total))
    return Published(
        tuple(tuple(None if value == "–" else round(float(value) / 100, 4) for value in part) for part in parts), source
    )


def _ablation(total_avg: float, source: str, *, seen_avg: str = "–", unseen_avg: str = "–") -> Published:
    """A result of which the Avg is known, and the other measures are not."""
    return _row(f"– – – {seen_avg}", f"– – – {unseen_avg}", f"– – – {total_avg}", source)


def _later(total: str, source: str, *, seen_avg: float, unseen_avg: float) -> Published:
    """A later system, of which only the Avg of seen and of unseen clips is known besides the total."""
    return _row(f"– – – {seen_avg}", f"– – – {unseen_avg}", total, source)


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "Video-LLaMA2": _row("50.1 40.6 32.0 40.9", "48.5 38.5 29.0 38.6", "48.9 39.1 29.8 39.3"),
        "CLIP & CLAP": _row("51.4 41.4 31.9 41.6", "51.6 42.2 31.6 41.8", "51.5 41.9 31.7 41.7"),
        "training-free": _row("57.5 45.0 34.0 45.5", "59.8 47.3 34.0 47.0", "59.2 46.7 34.0 46.6"),
        "CMRA": _row("65.2 58.8 54.3 59.4", "36.0 31.0 26.3 31.1", "44.3 38.9 34.3 39.2"),
        "AVE": _row("76.6 63.6 56.0 65.4", "44.6 33.2 24.0 34.0", "53.8 41.9 33.2 42.9"),
        "PSP": _row("75.4 66.8 61.0 67.7", "33.7 28.2 24.2 28.7", "45.6 39.3 34.7 39.9"),
        "MM-Pyramid": _row("76.5 66.9 62.3 68.6", "36.8 29.0 23.8 29.9", "48.4 40.2 35.2 41.2"),
        "fine-tuned": _row("72.5 61.8 54.5 62.9", "64.9 55.0 47.5 55.8", "67.1 56.9 49.5 57.8"),
        "fine-tuned without other": _ablation(47.0, f"{PAPER}, Table 3"),
        "Prob-avg": _ablation(39.0, f"{PAPER}, Table 4"),
        "Fea-avg": _ablation(40.2, f"{PAPER}, Table 4"),
        "Linear in place of the block": _ablation(
            39.0, f"{PAPER}, Table 5; Avg of seen and of unseen clips from {NOTE}", seen_avg="65.8", unseen_avg="28.3"
        ),
        "two blocks": _ablation(56.9, NOTE),
        "cross-modal only": _ablation(46.5, NOTE),
        "75 % of the training data": _ablation(57.6, f"{PAPER}, Table 6"),
        "50 % of the training data": _ablation(57.8, f"{PAPER}, Table 6"),
        "25 % of the training data": _ablation(57.7, f"{PAPER}, Table 6"),
        "AV²A": _later("61.4 53.9 49.5 55.0", AV2A, seen_avg=53.4, unseen_avg=55.6),
        "AV²A with a policy for each clip": _later("63.9 56.9 52.9 57.9", LATER, seen_avg=61.4, unseen_avg=56.5),
        "CueRator, one θ": _ablation(50.6, CUERATOR),
        "CueRator": _later("68.6 59.4 52.7 60.2", CUERATOR, seen_avg=61.1, unseen_avg=59.9),
        "complex fusion": _later("67.4 59.9 55.5 60.9", COMPLEX, seen_avg=66.3, unseen_avg=58.8),
        "complex fusion, four streams": _later("68.2 61.1 57.0 62.1", COMPLEX, seen_avg=68.6, unseen_avg=59.9),
    }
)
"""Figures of the OV-AVEBench paper by method, its ablations and later systems last; Avg as printed there."""

MOST_DAMAGED = 0.02
"""Share of a split's clips that may be damaged where its scores stand beside published ones."""


def too_damaged(split: str, scored: int, damaged: int) -> str:
    """Warn if too many clips of a split are damaged for a comparison with published figures; empty if not."""
    clips = scored + damaged
    if damaged <= MOST_DAMAGED * clips:
        return ""
    return (
        f"WARNING: {damaged} of the {clips} clips of {split} are damaged ({damaged / clips:.1%}, more than "
        f"{MOST_DAMAGED:.0%}): these figures are of other clips than the published ones, which are left out. "
        "`ovavel eval data` lists every damaged clip"
    )


def why_not_published(split: str, classes: int, clips: int) -> str:
    """Explain why no published figures are shown beside a split's scores, judging by its counts; empty if they are."""
    if (split, classes, clips) == ("test", 68, 5820):
        return ""
    return "No published figures stand beside these: they are for the 5 820 clips of OV-AVEBench's own test split only."


def score_rows(predicted: NDArray[np.integer], truth: AnyTruth, seen: NDArray[np.bool_], n_classes: int) -> Rows:
    """Score one class per segment (docs/method.md, Metrics) for the seen, the unseen and all clips.

    Args:
        predicted: (N, T) class indices in [0, n_classes).
        truth: (N, T) class indices in [0, n_classes).
        seen: (N,) bool, True for clips of a class that was trained on.
        n_classes: C, with the background as the last.

    Raises:
        UsageError: the shapes differ, there is no clip, or a value is not a class index.
    """
    return _rows(each_clip(predicted, truth, n_classes), seen)


def score_rows_agreement(
    vision_label: NDArray[np.integer],
    audio_label: NDArray[np.integer],
    truth: AnyTruth,
    seen: NDArray[np.bool_],
    n_classes: int,
) -> Rows:
    """Score the agreement protocol (docs/method.md, Metrics) for the seen, the unseen and all clips.

    Args:
        vision_label: (N, T) arg max class of what is seen.
        audio_label: (N, T) arg max class of what is heard.
        truth: (N, T) class indices in [0, n_classes).
        seen: (N,) bool, True for clips of a class that was trained on.
        n_classes: C, with the background as the last.

    Raises:
        UsageError: the shapes differ, there is no clip, or a value is not a class index.
    """
    return _rows(each_agreement(vision_label, audio_label, truth, n_classes), seen)


def _rows(each: NDArray[np.float64], seen: NDArray[np.bool_]) -> Rows:
    """Means of the measures (N, 4) of each clip, over the clips of each kind."""
    seen = np.asarray(seen)
    if seen.shape != (len(each),) or seen.dtype != np.bool_:
        raise UsageError(f"seen must be one bool per clip, ({len(each)},); got {seen.shape} {seen.dtype}")
    return Rows(
        mean_scores(each[seen]) if seen.any() else None,
        None if seen.all() else mean_scores(each[~seen]),
        mean_scores(each),
    )


def without_head(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
    """Decide without a temporal head, as training-free localization does: a `Head` of the embeddings as they are."""
    similarities = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
    return HeadOutput(*similarities, fused_score(*similarities))


def decide(
    head: Head,
    audio: NDArray[np.float32],
    vision: NDArray[np.float32],
    text: TextEmbeddings,
    batch: int = 256,
) -> HeadOutput:
    """Run a head, such as `Backend.head`, over any number of clips, `batch` at a time.

    Args:
        head: takes audio (B, T, D), vision (B, T, D) and C texts for each.
        audio: (N, T, D) float32, unit norm.
        vision: (N, T, D) float32, unit norm.
        text: C embeddings for each sense, float32, unit norm, background last.
        batch: clips at once; it bounds the memory the head takes.

    Returns:
        (N, T, C) float32 arrays.

    Raises:
        UsageError: there is no clip, the shapes do not fit together, or `batch` is below 1.
    """
    fits = audio.ndim == vision.ndim == 3 and audio.shape[:2] == vision.shape[:2] and audio.size
    if not fits or (audio.shape[2], vision.shape[2]) != text.sizes:
        raise UsageError(
            f"audio {audio.shape} and vision {vision.shape} must be (clips, segments, embedding size), not empty, and "
            f"the texts of their embedding sizes, not {' and '.join(map(str, text.sizes))}"
        )
    if batch < 1:
        raise UsageError(f"a batch holds at least 1 clip, not {batch}")
    outputs = [
        head(np.ascontiguousarray(audio[i : i + batch]), np.ascontiguousarray(vision[i : i + batch]), text)
        for i in range(0, len(audio), batch)
    ]
    return HeadOutput(*(np.concatenate(arrays) for arrays in zip(*outputs, strict=True)))
