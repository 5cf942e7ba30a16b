"""Accuracy versus lag: decisions on clips fed second by second, at every lag, alone and joined to long streams.

The runtime's `Localizer` scores one stream, one second at a time. `stream_scores` does the same for many streams of one
length at once: with each new second one batch of buffers. A test holds both to the same decisions.

Shapes: N clips of T seconds (ten); B streams of S seconds; L lags (the buffer's length); D embedding size; C classes
with the background last; M decision rules (latest, mean).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import AnyTruth, Scores, right
from ovavel.eval.accuracy.protocols import Rows, fused_labels, score_rows
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.localizer import Head
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import BUFFER

__all__ = [
    "RULES",
    "STREAM_CLIPS",
    "TOLERANCE",
    "Curve",
    "LagResult",
    "Measures",
    "check_seeds",
    "chosen_lag",
    "final_scores",
    "joined_labels",
    "measure_streaming",
    "stream_labels",
    "stream_scores",
]

RULES = ("latest score", "mean over buffers")
"""M ways to decide on a second that several buffers have scored."""

STREAM_CLIPS = 60
"""Clips that are joined to one stream: ten minutes of ten-second clips."""

TOLERANCE = 0.005
"""A smaller lag is chosen where its Avg. is at most so far below the best one's."""

_BATCH = 128  # streams at once: their scores take 0.2 GB for OV-AVEBench


class Measures(Struct, frozen=True, kw_only=True):
    """The three measures and their mean, each in [0, 1]."""

    acc: float
    seg: float
    eve: float
    avg: float


class LagResult(Struct, frozen=True, kw_only=True):
    """Accuracy at one lag."""

    lag: int
    """Later seconds that a decision waits for."""
    total: Measures
    seen: Measures | None
    unseen: Measures | None
    avg_deviation: float | None
    """Standard deviation of the total Avg. over the orders of the clips; None for clips alone."""
    acc_at: tuple[float, ...]
    """Acc. of each second of a clip, the first to the last."""


class Curve(Struct, frozen=True, kw_only=True):
    """One way of feeding and deciding, at every lag."""

    joined: bool
    """Whether the clips were joined to long streams, so that buffers straddle two of them; else each came alone."""
    rule: str
    """One of `RULES`."""
    lags: tuple[LagResult, ...]


class _Decided(NamedTuple):
    rows: Rows
    acc_at: NDArray[np.float64]


def stream_scores(
    head: Head, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings
) -> NDArray[np.float32]:
    """Score every second in every buffer that holds it, as `Localizer.push` does.

    Args:
        head: such as `Backend.head`.
        audio: (B, S, D) float32, unit norm.
        vision: (B, S, D) float32, unit norm.
        text: C embeddings for each sense, float32, unit norm.

    Returns:
        (B, S, L, C) float32: [:, t, l] is the score of second t once l later seconds are in; where the stream ends
        before that, the score of the last buffer, as `Localizer.flush` gives it.
    """
    streams, length, _ = audio.shape
    scores = np.empty((streams, length, BUFFER, len(text)), np.float32)
    for newest in range(length):
        first = max(0, newest - BUFFER + 1)
        sound, sight = (np.ascontiguousarray(sense[:, first : newest + 1]) for sense in (audio, vision))
        seconds = np.arange(first, newest + 1)
        scores[:, seconds, newest - seconds] = head(sound, sight, text).score
    for waited in range(1, BUFFER):
        last = max(0, length - waited)
        scores[:, last:, waited] = scores[:, last:, waited - 1]
    return scores


def final_scores(
    head: Head,
    audio: NDArray[np.float32],
    vision: NDArray[np.float32],
    text: TextEmbeddings,
    *,
    lag: int,
    batch: int = _BATCH,
) -> NDArray[np.float32]:
    """(N, T, C) final scores of clips fed alone, each (N, T, D), as a `Localizer` of that `lag` gives them."""
    parts = [
        stream_scores(head, audio[i : i + batch], vision[i : i + batch], text)[:, :, lag]
        for i in range(0, len(audio), batch)
    ]
    return np.concatenate(parts)


def stream_labels(
    head: Head, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings
) -> NDArray[np.intp]:
    """Decide on every second of (B, S, D) streams by every rule at every lag: (M, L, B, S) classes."""
    scores = stream_scores(head, audio, vision, text)
    left = np.arange(scores.shape[1])[::-1]  # seconds that come after
    labels = np.empty((len(RULES), BUFFER, *scores.shape[:2]), np.intp)
    total = np.zeros_like(scores[:, :, 0])
    for lag in range(BUFFER):
        total += np.where(left[:, None] >= lag, scores[:, :, lag], 0)  # a buffer that never came is not in the mean
        labels[0, lag] = fused_labels(scores[:, :, lag])
        labels[1, lag] = fused_labels(total)  # the sum and the mean have the same arg max
    return labels


def joined_labels(
    head: Head,
    audio: NDArray[np.float32],
    vision: NDArray[np.float32],
    text: TextEmbeddings,
    *,
    lag: int,
    seed: int,
    stream_clips: int = STREAM_CLIPS,
) -> NDArray[np.intp]:
    """Decide on clips that are joined to streams in a random order, with one lag: (N, T) classes.

    Args:
        head: such as `Backend.head`.
        audio: (N, T, D) float32, unit norm.
        vision: (N, T, D) float32, unit norm.
        text: C embeddings for each sense, float32, unit norm, background last.
        lag: later seconds that a decision waits for.
        seed: of the order.
        stream_clips: clips that make one stream; the last stream may be shorter.
    """
    clips, length, _ = audio.shape
    labels = np.empty((clips, length), np.intp)
    for chosen in _batches(default_rng(seed).permutation(clips), stream_clips):
        shape = (len(chosen), chosen.shape[1] * length, -1)
        scores = stream_scores(head, audio[chosen].reshape(shape), vision[chosen].reshape(shape), text)
        labels[chosen.reshape(-1)] = fused_labels(scores[:, :, lag]).reshape(-1, length)
    return labels


def measure_streaming(
    head: Head,
    audio: NDArray[np.float32],
    vision: NDArray[np.float32],
    text: TextEmbeddings,
    truth: AnyTruth,
    seen: NDArray[np.bool_],
    *,
    seeds: Sequence[int],
    stream_clips: int = STREAM_CLIPS,
    progress: Progress = no_progress,
) -> tuple[Curve, ...]:
    """Score clips fed second by second: alone and joined, by every rule, at every lag.

    Many parameters: the arrays come from a split in one program and are made up in another.

    Args:
        head: such as `Backend.head`.
        audio: (N, T, D) float32, unit norm.
        vision: (N, T, D) float32, unit norm.
        text: C embeddings for each sense, float32, unit norm, background last.
        truth: (N, T) class indices, or (N, T, C) bool where events may overlap.
        seen: (N,) whether a clip is of a seen class.
        seeds: one random order of the clips for each; figures of joined clips are means over them.
        stream_clips: clips that make one stream; the last stream may be shorter.
        progress: called with how many clips are done, of N * (1 + len(seeds)).

    Raises:
        UsageError: no seed, one of them negative or twice, or streams of fewer than two clips.
    """
    check_seeds(seeds)
    if stream_clips < 2:
        raise UsageError(f"a stream of joined clips needs at least 2 of them, not {stream_clips}")
    clips, length, _ = audio.shape
    done = 0

    def decide(order: NDArray[np.intp], each: int) -> NDArray[np.intp]:
        """(M, L, N, T) labels of the clips in dataset order, `each` of them joined in the order given."""
        nonlocal done
        labels = np.empty((len(RULES), BUFFER, clips, length), np.intp)
        for chosen in _batches(order, each):  # (B, each) clips
            shape = (len(chosen), chosen.shape[1] * length, -1)
            streams = stream_labels(head, audio[chosen].reshape(shape), vision[chosen].reshape(shape), text)
            labels[:, :, chosen.reshape(-1)] = streams.reshape(len(RULES), BUFFER, -1, length)
            done += chosen.size
            progress("streaming", done, clips * (1 + len(seeds)))
        return labels

    def score(labels: NDArray[np.intp]) -> _Decided:
        return _Decided(score_rows(labels, truth, seen, len(text)), right(labels, truth).mean(axis=0))

    alone = decide(np.arange(clips), 1)
    orders = [default_rng(seed).permutation(clips) for seed in seeds]
    joined = [decide(order, stream_clips) for order in orders]
    curves = []
    for is_joined, runs in ((False, [alone]), (True, joined)):
        for m, rule in enumerate(RULES):
            lags = (_result(lag, [score(labels[m, lag]) for labels in runs], is_joined) for lag in range(BUFFER))
            curves.append(Curve(joined=is_joined, rule=rule, lags=tuple(lags)))
    return tuple(curves)


def chosen_lag(curve: Curve, tolerance: float = TOLERANCE) -> int:
    """The smallest lag whose total Avg. is at most `tolerance` below that of the best one."""
    best = max(result.total.avg for result in curve.lags)
    return next(result.lag for result in curve.lags if result.total.avg >= best - tolerance)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that give no order of clips, or the same one twice.

    Raises:
        UsageError: there is none, one is negative, or one comes twice.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds must be different whole numbers from 0 on, at least one of them; got {list(seeds)}")


def _batches(order: NDArray[np.intp], each: int) -> Iterator[NDArray[np.intp]]:
    """Cut an order of clips into (B, each) streams, `_BATCH` at once, and one of what is left over."""
    whole = len(order) // each * each
    streams = order[:whole].reshape(-1, each)
    for start in range(0, len(streams), _BATCH):
        yield streams[start : start + _BATCH]
    if whole < len(order):
        yield order[None, whole:]


def _result(lag: int, runs: Sequence[_Decided], joined: bool) -> LagResult:
    return LagResult(
        lag=lag,
        total=_measures([run.rows.total for run in runs]),
        seen=_mean_or_none([run.rows.seen for run in runs]),
        unseen=_mean_or_none([run.rows.unseen for run in runs]),
        avg_deviation=float(np.std([run.rows.total.avg for run in runs])) if joined else None,
        acc_at=tuple(np.mean([run.acc_at for run in runs], axis=0).tolist()),
    )


def _mean_or_none(scores: Sequence[Scores | None]) -> Measures | None:
    there = [each for each in scores if each is not None]
    return _measures(there) if there else None


def _measures(scores: Sequence[Scores]) -> Measures:
    acc, seg, eve, avg = np.mean(scores, axis=0).tolist()
    return Measures(acc=acc, seg=seg, eve=eve, avg=avg)
