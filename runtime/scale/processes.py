"""A job on this machine, in a process of its own: an item that kills it is tried once more, then given up."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from ovavel.runtime.scale.work import ItemT, JobT, Outcome, Start
from ovavel.runtime.system.interrupt import interrupted_after
from ovavel.runtime.system.parallel import Crashed, run_each

__all__ = ["process_here"]

_TRIES = 2
"""How often `run_each` tries a job."""

_worker: Any = None
"""Of this process, once it has one."""


def process_here(
    start: Start[JobT, ItemT], job: JobT, items: Sequence[ItemT]
) -> Generator[tuple[ItemT, Outcome] | None]:
    """Yield each item with what became of it.

    When this is interrupted, or closed before its end, what runs is killed: it will be done from its start next time.
    """
    results = run_each(partial(_process, start, job), items, workers=1)
    try:
        with interrupted_after(_kill):
            for item, result in results:
                if isinstance(result, Crashed):
                    result = start(job).give_up(item, _TRIES)
                yield item, result
    finally:
        _kill()


def _process(start: Start[JobT, ItemT], job: JobT, item: ItemT) -> Outcome:
    """Runs in the other process, which works on one job and keeps its worker."""
    global _worker
    if _worker is None:
        _worker = start(job)
    outcome: Outcome = _worker.process(item)
    return outcome


def _kill() -> None:
    for child in multiprocessing.active_children():
        child.kill()
