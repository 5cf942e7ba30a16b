"""A job on this machine, in a process of its own: a recording that kills it is tried once more, then failed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Sequence
from functools import partial

from ovavel.runtime.scale.job import Job, Recording
from ovavel.runtime.scale.worker import Outcome, Worker
from ovavel.runtime.system.interrupt import interrupted_after
from ovavel.runtime.system.parallel import Crashed, run_each

__all__ = ["process_here"]

_TRIES = 2
"""How often `run_each` tries a job."""

_worker: tuple[Job, Worker] | None = None
"""Of this process, once it has one."""


def process_here(job: Job, recordings: Sequence[Recording]) -> Generator[tuple[Recording, Outcome] | None]:
    """Yield each recording with what became of it.

    When this is interrupted, or closed before its end, what runs is killed: it will be done from its start next time.
    """
    results = run_each(partial(_process, job), recordings, workers=1)
    try:
        with interrupted_after(_kill):
            for recording, result in results:
                if isinstance(result, Crashed):
                    result = Worker(job).give_up(recording, _TRIES)
                yield recording, result
    finally:
        _kill()


def _process(job: Job, recording: Recording) -> Outcome:
    """Runs in the other process, which keeps its backend."""
    global _worker
    if _worker is None or _worker[0] != job:
        _worker = job, Worker(job)
    return _worker[1].process(recording)


def _kill() -> None:
    for child in multiprocessing.active_children():
        child.kill()
