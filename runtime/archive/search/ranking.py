"""How well seconds fit a phrase (docs/archive.md, Ranking). Pure.

Shapes: N seconds, Q phrases, B texts that speak against all of them, D embedding size of a sense, W bits of a sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ovavel.runtime.archive.layout import NO_AUDIO, NO_VISION, WRITTEN, pack_bits
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.archive.reader import DayReader, Vectors
    from ovavel.runtime.types import Sense

__all__ = ["Evidence", "Ranking"]

Evidence = Literal["both", "seen", "heard"]
"""What has to speak for a phrase."""

_SLACK = 1.0
"""Standard deviations by which every similarity that bits estimate is taken to be wrong, against the second. It decides
between recall and speed; docs/archive.md has both."""
_CACHED = 2048
"""Rows at once, so that what is in between stays in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """Q phrases, each ranked by itself."""

    phrases: TextEmbeddings
    """Q rows; not texts only: the vectors of a second stand for "like this second"."""
    against: TextEmbeddings | None = None
    """B rows: the background, its further texts, and what must not fit. None: nothing speaks against a phrase."""
    evidence: Evidence = "both"

    @property
    def senses(self) -> tuple[Sense, ...]:
        """The senses that count."""
        return {"both": ("audio", "vision"), "seen": ("vision",), "heard": ("audio",)}[self.evidence]  # type: ignore[return-value]

    def usable(self, flags: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(N,) whether a second with these flags has what is asked for."""
        needed = {"both": NO_AUDIO | NO_VISION, "seen": NO_VISION, "heard": NO_AUDIO}[self.evidence]
        found: NDArray[np.bool_] = (flags & (WRITTEN | needed)) == WRITTEN
        return found

    def scores(self, vectors: Vectors) -> NDArray[np.float32]:
        """(N, Q) float32: the root of the product of both similarities, minus that of the best text against it.

        In [-1, 1] but for rounding. A negative similarity counts as 0: two that speak against a phrase are no evidence
        for it.
        """
        texts = self.texts
        return self.fused({sense: vectors.products(sense, texts.of(sense)) for sense in self.senses})

    def exact(self, audio: NDArray[np.float32], vision: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, Q), as `scores`, of (N, D) float32 vectors."""
        texts, both = self.texts, {"audio": audio, "vision": vision}
        return self.fused({sense: both[sense] @ texts.of(sense).T for sense in self.senses})

    def prefilter(self) -> Prefilter:
        """What estimates the scores from bits."""
        return Prefilter(self)

    @property
    def texts(self) -> TextEmbeddings:
        """Q + B rows."""
        return self.phrases if self.against is None else TextEmbeddings.joined([self.phrases, self.against])

    def fused(
        self, similarity: dict[Sense, NDArray[np.float32]], slack: dict[Sense, float] | None = None
    ) -> NDArray[np.float32]:
        """Fuse similarities (N, Q + B); with `slack`, take each to be wrong by as much, in favour of the phrases."""
        count = len(self.phrases)
        mine, theirs = [], []
        for sense, values in similarity.items():
            by = np.float32(slack[sense] if slack else 0)
            mine.append(np.maximum(values[:, :count] + by, 0))
            theirs.append(np.maximum(values[:, count:] - by, 0))
        fused = _joined(mine)
        if self.against is not None:
            fused = fused - _joined(theirs).max(axis=1, keepdims=True)
        return fused


def _joined(senses: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The root of the product of both senses, or the only one."""
    return senses[0] if len(senses) == 1 else np.sqrt(senses[0] * senses[1])


class Prefilter:
    """Estimates of the scores from the signs of the vectors."""

    def __init__(self, ranking: Ranking) -> None:
        """Rotate the texts of `ranking` once."""
        self._ranking = ranking
        texts = ranking.texts
        self._bits = {sense: pack_bits(texts.of(sense).astype(np.float64)) for sense in ranking.senses}
        width = {sense: 64 * bits.shape[1] for sense, bits in self._bits.items()}
        self._error = {sense: float(np.sqrt((np.pi**2 / 4 - 1) / each)) for sense, each in width.items()}
        self._cosine = {
            sense: np.cos(np.pi * np.arange(each + 1) / each).astype(np.float32) for sense, each in width.items()
        }

    def estimates(self, day: DayReader, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The scores of the seconds in ascending `rows`, and what they are at most: (N, Q) twice.

        Raises:
            InputError: the bits cannot be read.
        """
        phrases = len(self._ranking.phrases)
        similarity: dict[Sense, NDArray[np.float32]] = {
            sense: np.empty((len(rows), len(texts)), np.float32) for sense, texts in self._bits.items()
        }
        for start in range(0, len(rows), _CACHED):
            part = rows[start : start + _CACHED]
            first, last = int(part[0]), int(part[-1]) + 1
            stored = day.bits(first, last)
            if len(part) < len(stored):
                stored = stored[part - first]
            for sense, texts in self._bits.items():
                bits, cosine = stored[:, day.words(sense)], self._cosine[sense]
                for number, text in enumerate(texts):
                    similarity[sense][start : start + len(part), number] = cosine[_differing(bits, text)]
        for sense, error in self._error.items():
            _shrink(similarity[sense][:, phrases:], error)
        return self._ranking.fused(similarity), self._ranking.fused(
            similarity, {sense: _SLACK * each for sense, each in self._error.items()}
        )


def _shrink(estimates: NDArray[np.float32], error: float) -> None:
    """Move (N, B) estimates with a standard deviation of `error` towards the mean of each column, in place.

    By as much as makes the most of them right: the background fits most seconds about equally, and what bits say of it
    is mostly error. Never what they say of a phrase, which fits few.
    """
    if not len(estimates):
        return
    variance = estimates.var(axis=0)
    share = np.maximum(variance - np.float32(error**2), 0) / np.maximum(variance, np.float32(1e-12))
    mean = estimates.mean(axis=0)
    estimates -= mean
    estimates *= share
    estimates += mean


def _differing(rows: NDArray[np.uint64], text: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """(N,) how many bits of (N, W / 64) `rows` differ from `text`."""
    found: NDArray[np.uint32] = np.einsum("ij->i", np.bitwise_count(rows ^ text), dtype=np.uint32)  # faster than sum()
    return found
