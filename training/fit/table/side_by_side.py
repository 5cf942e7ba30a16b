"""Trains several runs of a table at once, each in a worker process.

A run killed at any moment resumes (`ovavel.training.fit.train`). So the workers are killed where the table ends early:
by Ctrl-C, SIGTERM or an error in one of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.runtime.errors import DeviceError, OvavelError
from ovavel.runtime.system.parallel import begin_worker
from ovavel.runtime.system.progress import Progress
from ovavel.training.fit.data import Data, read_data
from ovavel.training.fit.table.jobs import Job, Steps, lend_trunk, lender
from ovavel.training.fit.times import trained_side_by_side
from ovavel.training.fit.train import fit_data

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset

__all__ = ["RunSource", "train_side_by_side"]

_EVERY_S = 0.2
"""Between two reports of a worker."""


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """What all runs are trained with."""

    dataset: Dataset
    cache: FeatureCache
    device: str
    overwrite: bool


def train_side_by_side(jobs: Sequence[Job], source: RunSource, out: Path, *, processes: int, steps: Steps) -> None:
    """Train `jobs`, so many at once, in their order; one that stands on another's head waits for it.

    The processes share out PyTorch's threads. With the same number of threads each run is, byte for byte, what it would
    be by itself.

    Args:
        jobs: complete ones are only checked.
        source: data and device.
        out: folder of the table.
        processes: at least 1.
        steps: progress of all runs.

    Raises:
        OvavelError: a run failed; the others are ended.
        DeviceError: a process was killed.
    """
    left = list(jobs)
    running: dict[Connection, Job] = {}
    with _workers(source, processes) as workers:
        idle = list(workers)
        while left or running:
            open_ends = {job.folder for job in (*left, *running.values())}
            ready = [job for job in left if lender(job, out) not in open_ends]
            for worker, job in zip(tuple(idle), ready, strict=False):
                left.remove(job)
                idle.remove(worker)
                running[worker] = job
                lend_trunk(job, out)
                with contextlib.suppress(OSError):  # of a dead worker; reading says so
                    worker.send(job)
            for worker in [each for each in wait(list(running)) if isinstance(each, Connection)]:
                job = running[worker]
                try:
                    message = worker.recv()
                except (EOFError, OSError) as error:
                    raise DeviceError(
                        f"the process that trained {job.folder} was killed, possibly because memory ran out; run the "
                        "command again with fewer --processes: it resumes"
                    ) from error
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    steps.finished(running.pop(worker))
                    idle.append(worker)
                else:
                    steps.of(job)(*message)


@contextlib.contextmanager
def _workers(source: RunSource, processes: int) -> Iterator[list[Connection]]:
    """Start workers, and kill them at the end; yields a connection to each."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks of PyTorch's threads
    threads = max(1, torch.get_num_threads() // processes)
    started, connections = [], []
    try:
        with _without_interrupts():
            for _ in range(processes):
                ours, theirs = spawn.Pipe()
                worker = spawn.Process(target=_work, args=(pickle.dumps(source), processes, threads, theirs))
                worker.start()
                started.append(worker)
                connections.append(ours)
                theirs.close()  # so that reading ends with the worker
        yield connections
    finally:
        for worker in started:
            worker.kill()
        for worker in started:
            worker.join()
            worker.close()
        for connection in connections:
            connection.close()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait here, and never reach processes started meanwhile: they would print a traceback on importing."""
    resource_tracker.ensure_running()  # if it were started inside, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(given: bytes, processes: int, threads: int, parent: Connection) -> None:
    """Train the runs that `parent` sends until it is gone; runs in a worker process."""
    begin_worker()
    torch.set_num_threads(threads)
    trained_side_by_side(processes)
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            _train_each(pickle.loads(given), parent)  # noqa: S301 - from our own parent
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the parent raises it
            parent.send(_portable(error))


def _train_each(source: RunSource, parent: Connection) -> None:
    data: Data | None = None
    ratio = 0.0
    while True:
        job: Job = parent.recv()
        if data is None or ratio != job.recipe.train_ratio:
            data, ratio = None, job.recipe.train_ratio
            data = read_data(source.dataset, source.cache, ratio)
        fit_data(
            job.recipe,
            data,
            job.folder,
            trunk_by=job.trunk,
            device=source.device,
            overwrite=source.overwrite,
            progress=_reports(parent),
        )
        parent.send(None)


def _reports(parent: Connection) -> Progress:
    """Return a progress that `parent` hears of now and then."""
    sent_s = 0.0

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        nonlocal sent_s
        if (now_s := time.monotonic()) - sent_s >= _EVERY_S:
            sent_s = now_s
            parent.send((what, done, total, note))

    return report


def _portable(error: Exception) -> Exception:
    """Return `error` as another process can read it."""
    if not isinstance(error, OvavelError):
        error.add_note("In a training process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its parts raise
        plain = OvavelError(str(error)) if isinstance(error, OvavelError) else RuntimeError(repr(error))
        plain.__dict__.update(exit_code=getattr(error, "exit_code", 1), __notes__=getattr(error, "__notes__", []))
        return plain
    return error
