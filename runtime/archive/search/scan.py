"""Ranks the seconds of an archive by phrases: bits first, then the vectors of what may be among the best.

Newest first, one day after the other. What bits say of a day depends on no other day, so the next days' bits are read
in threads while the vectors of one are compared; memory stays that of these few days. Shapes: N seconds, Q phrases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.archive.folders import DayGoneError
from ovavel.runtime.archive.layout import DAY_S
from ovavel.runtime.system.parallel import default_workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.archive.reader import Day, DayReader
    from ovavel.runtime.archive.search.ranking import Prefilter, Ranking

__all__ = ["KEPT", "Best", "Scanned", "exhaustive", "scan"]

KEPT = 2000
"""Seconds that are kept for each phrase."""
_CHUNK = 4096
"""Seconds whose vectors are in memory at once."""
_AHEAD = 4
"""Days whose bits are read at once, at most: more threads than that wait for the one that compares vectors."""


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
) -> Generator[Scanned]:
    """Rank the seconds of `days` in their order, and yield after each. Closing the iterator cancels the rest.

    Bits rule out a second only if its score, as far as they are likely to be wrong, is below that of all that are kept
    (docs/archive.md, Exactness).

    Raises:
        InputError: a day cannot be read.
    """
    best = [Best.none() for _ in range(len(ranking.phrases))]
    read = partial(_read, ranking=ranking, prefilter=ranking.prefilter(), from_s=from_s, to_s=to_s)
    seconds = compared = 0
    with closing(_ahead(days, read)) as found:
        for number, each in enumerate(found):
            seconds += len(each.rows)
            compared += _rank(each, number, ranking, best, keep)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bits:
    """What the bits of one day say of the N seconds that have what is asked for."""

    files: DayReader | None
    """Open; None where the day was removed meanwhile."""
    rows: NDArray[np.intp]
    """(N,) ascending."""
    estimate: NDArray[np.float32]
    """(N, Q) scores."""
    most: NDArray[np.float32]
    """(N, Q) what they are at most."""


def _read(day: Day, *, ranking: Ranking, prefilter: Prefilter, from_s: int | None, to_s: int | None) -> _Bits:
    with ExitStack() as opened:
        try:
            files = opened.enter_context(day.open())
        except DayGoneError:
            none = np.empty((0, len(ranking.phrases)), np.float32)
            return _Bits(files=None, rows=np.empty(0, np.intp), estimate=none, most=none)
        rows = _rows(day, files, ranking, from_s, to_s)
        estimate, most = prefilter.estimates(files, rows)
        opened.pop_all()
        return _Bits(files=files, rows=rows, estimate=estimate, most=most)


def _ahead(days: Sequence[Day], read: Callable[[Day], _Bits]) -> Generator[_Bits]:
    """Read `days` in threads, and yield them in order; the files of each are closed after it."""
    rest, threads = iter(days), min(_AHEAD, default_workers())
    waiting: deque[Future[_Bits]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ovavel-bits")
    try:
        waiting.extend(pool.submit(read, day) for day in islice(rest, threads))
        while waiting:
            found = waiting[0].result()
            with found.files or nullcontext():
                waiting.popleft()
                waiting.extend(pool.submit(read, day) for day in islice(rest, 1))
                yield found
    finally:
        pool.shutdown(cancel_futures=True)
        for each in waiting:
            if not each.cancelled() and each.exception() is None and (files := each.result().files):
                files.close()


def _rank(bits: _Bits, number: int, ranking: Ranking, best: list[Best], keep: int) -> int:
    """Rank the seconds of one day into `best`. Returns how many of them were compared."""
    files, rows, estimate, most = bits.files, bits.rows, bits.estimate, bits.most
    if files is None:
        return 0
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
