"""--shard and --on, and `ovavel localize` with them: many recordings, with a record of each."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ovavel.runtime.errors import DeviceError, MissingExtraError, OutputError, StorageError, UsageError
from ovavel.runtime.reporting.text import counts, one_line, shown_name

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.scale.job import Job, Recording
    from ovavel.runtime.scale.work import ItemT, JobT, Outcome, Start

__all__ = ["Others", "ScaleOptions", "check_outcome", "outcomes", "run_scaled"]

_WORDS = {
    "done": "localized",
    "kept": "already done",
    "failed": "failed",
    "unequal": "with other results",
}
_LOOK_EVERY_S = 10.0
_LOOK_SHARE = 0.05
"""Largest share of the time to spend on looking: many records in object storage take seconds to list."""


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """Much work, on one machine or on many."""

    shard: Annotated[str | None, arg(metavar="I/N", help_behavior_hint="")] = None
    """Do one of N parts of the work; other processes and machines do the others, into the same --out. Counts from 0 or
    from 1. What is done is on record there, and an interrupted run resumes."""
    on: Annotated[str | None, arg(metavar="{auto,ray://HOST:PORT}", help_behavior_hint="")] = None
    """Work on a Ray cluster (the extra 'cluster'): the one at this address, or auto: the one that this machine is
    part of, and otherwise this machine. --threads is the cores of each slot, by default all of a machine."""

    @property
    def given(self) -> bool:
        """Whether there is anything to do with shards or clusters."""
        return self.shard is not None or self.on is not None

    def check(self, *, files: Sequence[Path | str], out: Path | str | None, device: str) -> None:
        """Refuse what cannot work, before a file is opened. Raises UsageError, MissingExtraError."""
        from importlib.util import find_spec

        from ovavel.runtime.scale.job import Shard

        urls = [where for where in (*files, out) if isinstance(where, str)]
        if urls:
            from ovavel.runtime.scale.objects import check_url

            for url in urls:
                check_url(url)
            if not self.given:
                raise UsageError("object storage is for --shard and --on: give --shard 1/1 to localize all here")
            if len(files) > 1 and any(isinstance(file, str) for file in files):
                raise UsageError("of object storage, name one prefix that all recordings lie below, and nothing else")
        if not self.given:
            return
        if out is None:
            raise UsageError(
                f"--{'on' if self.shard is None else 'shard'} writes its results into a folder: give --out"
            )
        if self.shard is not None:
            Shard.parse(self.shard)
        if self.on is not None:
            if self.on != "auto" and not re.fullmatch(r"ray://[^/\s]+", self.on):
                raise UsageError(f"--on takes auto or ray://HOST:PORT, not {self.on!r}")
            if device.startswith("cuda:"):
                raise UsageError(
                    f"--device {device} names a GPU of one machine; with --on give cuda, and Ray chooses it"
                )
            if find_spec("ray") is None:
                raise MissingExtraError("ray", "cluster", need="--on")


def run_scaled(job: Job, recordings: Sequence[Recording], options: ScaleOptions, console: Console) -> int:
    """Localize `recordings`; returns the exit code.

    Raises:
        OutputError: results cannot be written. What is done is on record.
        StorageError: object storage does not answer, or refuses. What is done is on record.
        ClusterError, MissingExtraError: there is no cluster, or none of its machines can run the bundle.
        DeviceError: this machine cannot run the bundle.
    """
    from ovavel.runtime.scale.done import ResultFolder
    from ovavel.runtime.scale.job import Shard
    from ovavel.runtime.scale.worker import Worker
    from ovavel.runtime.system.bars import rated_bar

    recordings = list({recording.name: recording for recording in recordings}.values())
    total = len(recordings)
    if options.shard is not None:
        shard = Shard.parse(options.shard)
        recordings = [recording for recording in recordings if shard.holds(recording)]
        console.print(f"shard {options.shard}: {len(recordings)} of {total} recordings", markup=False)
    folder = ResultFolder(job.out)
    folder.prepare()
    said = _Report(console)
    with ExitStack() as stack:
        results, where = outcomes(Worker, job, recordings, options, stack)
        bar = stack.enter_context(rated_bar("recordings", console=said.errors))
        others = Others(folder.count_done, total) if len(recordings) < total else None
        for item in results:
            if item is not None:
                said.report(*item)
            note = ", ".join(filter(None, (where(), others.note() if others else "")))
            bar("localizing", said.states.total(), len(recordings), note)
    return said.conclude(len(recordings))


class _Report:
    """Prints what became of each recording, and of all."""

    def __init__(self, console: Console) -> None:
        from ovavel.runtime.reporting.console import ErrorConsole

        self.console, self.errors = console, ErrorConsole()
        self.states: Counter[str] = Counter()
        self._undecodable = 0
        self._length_s = 0.0
        self._said: set[str] = set()

    def report(self, recording: Recording, outcome: Outcome) -> None:
        """Print one. Raises what `check_outcome` does."""
        from ovavel.runtime.scale.worker import Localized

        check_outcome(outcome)
        self.states[outcome.state] += 1
        name = shown_name(recording.name)
        for notice in outcome.notices:
            if notice not in self._said:  # each process says the same of its engine
                self._said.add(notice)
                self.console.print(one_line(notice), markup=False)
        if isinstance(outcome, Localized):
            self._undecodable += outcome.undecodable
            self._length_s += outcome.duration_s
            events = "1 event" if outcome.events == 1 else f"{outcome.events} events"
            self.console.print(f"{name}: {outcome.duration_s:.1f} s, {events}", markup=False)
        elif outcome.state != "kept":
            self.errors.print(f"ovavel: {name}: {one_line(outcome.text)}", markup=False)

    def conclude(self, total: int) -> int:
        """Print the sums of all `total`; returns the exit code."""
        parts = {_WORDS[state]: count for state, count in self.states.items()}
        self.console.print(f"{counts(parts)}; {self._length_s / 3600:.2f} hours of media localized now", markup=False)
        if bad := self.states["failed"] + self.states["unequal"]:
            self.errors.print(f"ovavel: {bad} of {total} recordings could not be localized", markup=False)
        return 1 if bad or self._undecodable else 0


class Others:
    """How far all shards are together, looked up now and then."""

    def __init__(self, count: Callable[[], int], total: int) -> None:
        """Look with `count` how many of `total` are done."""
        self._count, self._total = count, total
        self._look_s = -math.inf
        self._done = 0

    def note(self) -> str:
        """Say it in a few words."""
        began_s = time.monotonic()
        if began_s > self._look_s:
            self._done = self._count()
            took_s = time.monotonic() - began_s
            self._look_s = began_s + max(_LOOK_EVERY_S, took_s / _LOOK_SHARE)
        return f"{self._done} of {self._total} in all shards"


def check_outcome(outcome: Outcome) -> None:
    """Raise an error for an outcome that every other item would have as well.

    Raises:
        OutputError, StorageError, DeviceError: nothing can be written, object storage cannot be reached, or this
            machine cannot do the work.
    """
    if outcome.state == "unreachable":
        raise StorageError(f"{outcome.text}; then run the command again: it resumes")
    if outcome.state == "unwritable":
        raise OutputError(f"{outcome.text}; then run the command again: it resumes")
    if outcome.state == "unusable":
        raise DeviceError(outcome.text)


def outcomes(
    start: Start[JobT, ItemT], job: JobT, items: Sequence[ItemT], options: ScaleOptions, stack: ExitStack
) -> tuple[Generator[tuple[ItemT, Outcome] | None], Callable[[], str]]:
    """What becomes of each item, as they end, and where it is worked on; `stack` ends both.

    Raises:
        ClusterError, MissingExtraError: there is no cluster, or it has no machine for a slot.
    """
    if options.on is None:
        from ovavel.runtime.scale.processes import process_here

        here = process_here(start, job, items)
        stack.enter_context(closing(here))
        return here, str
    from ovavel.runtime.reporting.console import ErrorConsole
    from ovavel.runtime.scale.cluster import Cluster

    errors = ErrorConsole()
    cluster = stack.enter_context(
        Cluster(options.on, threads=job.threads, gpus=job.gpus, report=lambda text: errors.print(text, markup=False))
    )
    results = cluster.process(start, job, items)
    stack.enter_context(closing(results))
    return results, lambda: cluster.note
