"""`ovavel localize` with --shard or --on: many recordings, with a record of each."""

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

from ovavel.runtime.errors import DeviceError, MissingExtraError, OutputError, UsageError
from ovavel.runtime.reporting.text import counts, one_line, shown_name

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.scale.done import ResultFolder
    from ovavel.runtime.scale.job import Job, Recording
    from ovavel.runtime.scale.worker import Outcome

__all__ = ["ScaleOptions", "run_scaled"]

_WORDS = {
    "done": "localized",
    "kept": "already done",
    "failed": "failed",
    "unequal": "with other results",
}
_LOOK_EVERY_S = 10.0
_ANY_GPU = ("onnxruntime", "tensorrt", "tensorrt-rtx")
"""Backends that take any NVIDIA GPU for --device auto."""


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """Many recordings, on one machine or on many."""

    shard: Annotated[str | None, arg(metavar="I/N", help_behavior_hint="")] = None
    """Localize one of N parts of the recordings; other processes and machines localize the others, into the same --out.
    Counts from 0 or from 1. Each recording that is done has a record, and an interrupted run resumes."""
    on: Annotated[str | None, arg(metavar="{auto,ray://HOST:PORT}", help_behavior_hint="")] = None
    """Localize on a Ray cluster (the extra 'cluster'): the one at this address, or auto: the one that this machine is
    part of, and otherwise this machine. --threads is the cores of each slot, by default all of a machine."""

    @property
    def given(self) -> bool:
        """Whether there is anything to do with shards or clusters."""
        return self.shard is not None or self.on is not None

    def check(self, *, out: Path | None, device: str) -> None:
        """Refuse what cannot work, before a file is opened. Raises UsageError, MissingExtraError."""
        from importlib.util import find_spec

        from ovavel.runtime.scale.job import Shard

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
            if ":" in device:
                raise UsageError(
                    f"--device {device} names a GPU of one machine; with --on give cuda, and Ray chooses it"
                )
            if find_spec("ray") is None:
                raise MissingExtraError("ray", "cluster", need="--on")


def run_scaled(job: Job, files: Sequence[Path], base: Path, options: ScaleOptions, console: Console) -> int:
    """Localize `files`, which lie below `base`; returns the exit code.

    Raises:
        OutputError: results cannot be written. What is done is on record.
        ClusterError, MissingExtraError: there is no cluster, or none of its machines can run the bundle.
        DeviceError: this machine cannot run the bundle.
    """
    from ovavel.runtime.scale.done import ResultFolder
    from ovavel.runtime.scale.job import Shard, recordings_below
    from ovavel.runtime.system.bars import rated_bar

    recordings = list({recording.name: recording for recording in recordings_below(files, base)}.values())
    total = len(recordings)
    if options.shard is not None:
        shard = Shard.parse(options.shard)
        recordings = [recording for recording in recordings if shard.holds(recording)]
        console.print(f"shard {options.shard}: {len(recordings)} of {total} recordings", markup=False)
    folder = ResultFolder(Path(job.out))
    folder.prepare()
    said = _Report(console)
    with ExitStack() as stack:
        results, where = _results(job, recordings, options, stack, said.errors)
        stack.enter_context(closing(results))
        bar = stack.enter_context(rated_bar("recordings", console=said.errors))
        others = _Others(folder, total) if len(recordings) < total else None
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
        """Print one.

        Raises:
            OutputError, DeviceError: the others would fare the same.
        """
        if outcome.state == "unwritable":
            raise OutputError(f"{outcome.text}; then run the command again: it resumes")
        if outcome.state == "unusable":
            raise DeviceError(outcome.text)
        self.states[outcome.state] += 1
        self._undecodable += outcome.undecodable
        self._length_s += outcome.duration_s
        name = shown_name(recording.name)
        for notice in outcome.notices:
            if notice not in self._said:  # each process says the same of its engine
                self._said.add(notice)
                self.console.print(one_line(notice), markup=False)
        if outcome.state == "done":
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


class _Others:
    """How far all shards are together, looked up now and then."""

    def __init__(self, folder: ResultFolder, total: int) -> None:
        self._folder, self._total = folder, total
        self._looked_s = -math.inf
        self._done = 0

    def note(self) -> str:
        if time.monotonic() - self._looked_s > _LOOK_EVERY_S:
            self._looked_s, self._done = time.monotonic(), self._folder.count_done()
        return f"{self._done} of {self._total} in all shards"


def _results(
    job: Job, recordings: Sequence[Recording], options: ScaleOptions, stack: ExitStack, errors: Console
) -> tuple[Generator[tuple[Recording, Outcome] | None], Callable[[], str]]:
    """What becomes of each recording, as they end, and where they are localized."""
    if options.on is None:
        from ovavel.runtime.scale.processes import process_here

        return process_here(job, recordings), str
    from ovavel.runtime.scale.cluster import Cluster

    device, backend = str(job.engine["device"]), job.engine["name"]
    gpus = None if device == "auto" and backend in _ANY_GPU else device == "cuda"
    cluster = stack.enter_context(
        Cluster(
            options.on, threads=job.engine["threads"], gpus=gpus, report=lambda text: errors.print(text, markup=False)
        )
    )
    return cluster.process(job, recordings), lambda: cluster.note
