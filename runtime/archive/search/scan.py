"""Ranks the seconds of an archive by phrases: bits first, then the vectors of what may be among the best.

Newest first, one day after the other; memory stays that of one day. Shapes: N seconds, Q phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.archive.layout import DAY_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.archive.reader import Day, DayReader
    from ovavel.runtime.archive.search.ranking import Prefilter, Ranking

__all__ = ["KEPT", "Best", "Scanned", "exhaustive", "scan"]

KEPT = 2000
"""Seconds that are kept for each phrase."""
_CHUNK = 4096
"""Seconds whose vectors are in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """N seconds with their scores for one phrase, the best first."""

    day: NDArray[np.intp]
    """(N,) index in the list of days."""
    row: NDArray[np.intp]
    """(N,) second of that day."""
    score: NDArray[np.float32]
    """(N,)"""

    @classmethod
    def none(cls) -> Best:
        """No seconds."""
        return cls(day=np.empty(0, np.intp), row=np.empty(0, np.intp), score=np.empty(0, np.float32))

    def __getitem__(self, rows: Any) -> Best:
        """Select by a slice, a mask or indices."""
        return Best(day=self.day[rows], row=self.row[rows], score=self.score[rows])

    def with_more(self, day: int, rows: NDArray[np.intp], scores: NDArray[np.float32], keep: int) -> Best:
        """Return the best `keep` of these and the `rows` of another `day`; of equals those that were there."""
        score = np.concatenate([self.score, scores])
        order = np.argsort(-score, kind="stable")[:keep]
        return Best(
            day=np.concatenate([self.day, np.full(len(rows), day)])[order],
            row=np.concatenate([self.row, rows])[order],
            score=score[order],
        )

    def least(self, keep: int) -> float:
        """What a further second has to exceed."""
        return float(self.score[-1]) if len(self.score) >= keep else -np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What is known once another day has been ranked."""

    done: int
    """Days that have been ranked; the last of them is `days[done - 1]`."""
    seconds: int
    """Seconds in them that had what was asked for."""
    compared: int
    """Those whose vectors were compared; the bits of the others ruled them out."""
    best: tuple[Best, ...]
    """For each phrase, the best seconds so far."""


def scan(
    days: Sequence[Day],
    ranking: Ranking,
    *,
    keep: int = KEPT,
    from_s: int | None = None,
    to_s: int | None = None,
) -> Iterator[Scanned]:
    """Rank the seconds of `days` in their order, and yield after each. Closing the iterator cancels the rest.

    Bits rule out a second only if its score, as far as they are likely to be wrong, is below that of all that are kept
    (docs/archive.md, Exactness).

    Raises:
        InputError: a day cannot be read.
    """
    best = [Best.none() for _ in range(len(ranking.phrases))]
    prefilter = ranking.prefilter()
    seconds = compared = 0
    for number, day in enumerate(days):
        with day.open() as files:
            rows = _rows(day, files, ranking, from_s, to_s)
            if len(rows):
                seconds += len(rows)
                compared += _rank(files, number, rows, ranking, prefilter, best, keep)
        yield Scanned(done=number + 1, seconds=seconds, compared=compared, best=tuple(best))


def exhaustive(
    days: Sequence[Day], ranking: Ranking, *, keep: int = KEPT, from_s: int | None = None, to_s: int | None = None
) -> tuple[Best, ...]:
    """Rank every second by its vectors in float32, without bits: what `scan` is measured against."""
    best = [Best.none() for _ in range(len(ranking.phrases))]
    for number, day in enumerate(days):
        with day.open() as files:
            rows = _rows(day, files, ranking, from_s, to_s)
            for start in range(0, len(rows), _CHUNK):
                found = files.vectors(rows[start : start + _CHUNK])
                _take(best, number, found.rows, ranking.exact(found.of("audio"), found.of("vision")), keep)
    return tuple(best)


def _rows(day: Day, files: DayReader, ranking: Ranking, from_s: int | None, to_s: int | None) -> NDArray[np.intp]:
    """The rows that have what is asked for, within the times."""
    usable = ranking.usable(files.flags())
    if from_s is not None:
        usable[: max(0, from_s - day.start_s)] = False
    if to_s is not None:
        usable[min(DAY_S, max(0, to_s - day.start_s)) :] = False
    return np.flatnonzero(usable)


def _rank(
    files: DayReader,
    number: int,
    rows: NDArray[np.intp],
    ranking: Ranking,
    prefilter: Prefilter,
    best: list[Best],
    keep: int,
) -> int:
    """Rank the `rows` of one day into `best`. Returns how many of them were compared."""
    estimate, most = prefilter.estimates(files, rows)
    left = np.arange(len(rows))
    compared = 0
    while True:
        # The likeliest ones first: what they reach rules out most of the others.
        lead = np.max([estimate[left, n] - max(each.least(keep), -1) for n, each in enumerate(best)], axis=0)
        may = np.any([most[left, n] > each.least(keep) for n, each in enumerate(best)], axis=0)
        left, lead = left[may], lead[may]
        if not len(left):
            return compared
        now = np.argpartition(-lead, _CHUNK)[:_CHUNK] if len(left) > _CHUNK else np.arange(len(left))
        found = files.vectors(rows[np.sort(left[now])])
        _take(best, number, found.rows, ranking.scores(found), keep)
        compared += len(now)
        left = np.delete(left, now)


def _take(best: list[Best], number: int, rows: NDArray[np.intp], scores: NDArray[np.float32], keep: int) -> None:
    for phrase, before in enumerate(best):
        column = scores[:, phrase]
        chosen = np.flatnonzero(column > before.least(keep))
        if len(chosen):
            best[phrase] = before.with_more(number, rows[chosen], column[chosen], keep)
