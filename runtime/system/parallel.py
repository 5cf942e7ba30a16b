"""Run many small jobs in worker processes, so that no job can end the run."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Final, TypeVar

__all__ = ["CRASHED", "Crashed", "begin_worker", "default_workers", "run_each", "show_progress"]

Job = TypeVar("Job")
Result = TypeVar("Result")


class Crashed:
    """Result of a job whose process died, from a library crash or a lack of memory."""


CRASHED: Final = Crashed()

_AHEAD = 4  # jobs queued per process


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_each(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int
) -> Iterator[tuple[Job, Result | Crashed]]:
    """Yield each job with the result of `function`, in order of completion.

    The processes are spawned, ignore Ctrl-C (the caller handles it) and end with the caller, even if it is killed. Jobs
    that are running when a process dies are tried once more, each in a separate process.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    rest = iter(jobs)
    more = True
    while more:
        suspects: list[Job] = []
        pending: dict[Future[Result], Job] = {}
        pool = _pool(workers)
        try:
            suspects += _submit(pool, function, islice(rest, _AHEAD * workers), pending)
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    job = pending.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        suspects.append(job)
                        continue
                    yield job, result
                    if not suspects:
                        suspects += _submit(pool, function, islice(rest, 1), pending)
            more = bool(suspects)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for job in suspects:
            with _pool(1) as alone:
                try:
                    result = alone.submit(function, job).result()
                except BrokenProcessPool:
                    yield job, CRASHED
                    continue
            yield job, result


def _submit(
    pool: ProcessPoolExecutor,
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    pending: dict[Future[Result], Job],
) -> list[Job]:
    """Submit `jobs` until a process dies; return the job that could not be submitted, if any."""
    for job in jobs:
        try:
            pending[pool.submit(function, job)] = job
        except BrokenProcessPool:
            return [job]
    return []


def show_progress(results: Iterable[Result], total: int, what: str, unit: str) -> Iterator[Result]:
    """Pass `results` on, with a bar, the rate and the time left on standard error where that is a terminal."""
    from ovavel.runtime.system.bars import rated_bar

    with rated_bar(unit) as progress:
        progress(what, 0, total)
        for done, result in enumerate(results, 1):
            progress(what, done, total)
            yield result


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker)


def begin_worker() -> None:
    """Make this process ignore Ctrl-C, which its parent handles, and end with the parent, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
