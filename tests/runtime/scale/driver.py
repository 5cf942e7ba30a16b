"""How many recordings one driver hands out: `python -m tests.runtime.scale.driver --machines 1 2 4 8 --slots 4`.

Each machine is a raylet on this one. Recordings cost their slots next to nothing: a slot reads a byte, and writes a
result of two bytes and the record. The clock runs from the moment at which every slot is ready. The driver's own time
of a processor says what it can do where the slots have other processors, as they have on a real cluster.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from ovavel.runtime.commands.scaled import ScaleOptions, run_scaled
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.reporting.console import OutputConsole
from ovavel.runtime.scale import cluster as clusters
from ovavel.runtime.scale import worker as workers
from ovavel.runtime.scale.done import Done, ResultFolder, Summary, output_name, recording_id
from ovavel.runtime.scale.job import Job, Recording, recordings_below
from ovavel.runtime.scale.work import ItemT, JobT, Outcome, Start
from ovavel.runtime.scale.worker import Localized
from ovavel.runtime.sources.media.fingerprint import fingerprint

MEMORY = Path("/dev/shm")
"""Where recordings and results lie: the disk is not what is measured."""
GO = "go"
HEAD = (
    "| machines | slots | recordings a second | driver, ms of a processor each | GCS, ms | raylets, ms | slots, ms |\n"
    "|---|---|---|---|---|---|---|"
)
_STORE_BYTES = 80_000_000


class QuickWorker:
    """In place of a `Worker`: has results at once, and waits before the first one until all slots are there."""

    def __init__(self, job: Job) -> None:
        self._job, self._folder = job, ResultFolder(job.out)

    def process(self, recording: Recording) -> Outcome:
        while not Path(self._job.out, GO).exists():
            time.sleep(0.05)
        key = recording_id(recording, fingerprint(Path(recording.path)))
        if self._folder.done(key):
            return Outcome(state="kept")
        path = Path(f"{recording.name}.ovavel.json")
        done = Done(
            id=key,
            recording=recording.name,
            request=self._job.request,
            outputs={output_name(path): hashlib.sha256(b"{}").hexdigest()},
            summary=Summary(duration_s=60.0, events={}, lost_s={}),
        )
        self._folder.write(key, done, {path: b"{}"})
        return Localized(state="done", duration_s=60.0)

    def give_up(self, recording: Recording, killed: int) -> Outcome:
        return Outcome(state="failed", text=f"it ended {killed} slots")


class Measured(clusters.Cluster):
    """Lets the slots begin once all are there, and measures from then on."""

    wanted = 0
    began: tuple[float, dict[str, float]]
    ended: tuple[float, dict[str, float]]

    def process(
        self, start: Start[JobT, ItemT], job: JobT, items: Sequence[ItemT]
    ) -> Generator[tuple[ItemT, Outcome] | None]:
        go = Path(job.out) / GO
        left = len(items)
        for item in super().process(start, job, items):
            if not go.exists() and sum(slot.node is not None for slot in self._slots) == Measured.wanted:
                Measured.began = time.monotonic(), used_s()
                go.touch()
            left -= item is not None
            if item is not None and left == 0:
                Measured.ended = time.monotonic(), used_s()
            yield item


def used_s() -> dict[str, float]:
    """Seconds of processors that the driver and those it started have used, by what they are."""
    used = dict.fromkeys(("driver", "gcs_server", "raylet", "slots"), 0.0)
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times, name, words = process.cpu_times(), process.name(), process.cmdline()
        except psutil.Error:
            continue
        if process.pid == os.getpid():
            kind = "driver"
        elif words and words[0].startswith("ray::"):
            kind = "slots"
        else:
            kind = name
        if kind in used:
            used[kind] += times.user + times.system
    return used


def measure(recordings: Sequence[Path], base: Path, out: Path, machines: int, slots: int) -> str:
    """Return a row of the table."""
    from ray.cluster_utils import Cluster

    job = Job(
        bundle=str(base),
        bundle_sha256="0" * 64,
        out=str(out),
        formats=("json",),
        engine={"name": "none", "precision": None, "device": "cpu", "threads": 1},
        lag=2,
        rules=EventRules(),
    )
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
        options: dict[str, Any] = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        try:
            for _ in range(machines):
                cluster.add_node(num_cpus=slots, object_store_memory=_STORE_BYTES)
            Measured.wanted = machines * slots
            with (
                mock.patch.object(workers, "Worker", QuickWorker),
                mock.patch.object(clusters, "Cluster", Measured),
                Path(os.devnull).open("w") as nowhere,
            ):
                code = run_scaled(
                    job,
                    recordings_below(recordings, base),
                    ScaleOptions(on="auto"),
                    OutputConsole(file=nowhere, highlight=False, soft_wrap=True),
                )
            assert code == 0, f"ended with {code}"
        finally:
            cluster.shutdown()
    assert ResultFolder(out).count_done() == len(recordings)
    (began_s, before), (ended_s, after) = Measured.began, Measured.ended
    count = len(recordings)
    each = " | ".join(f"{1e3 * (after[kind] - before[kind]) / count:.2f}" for kind in after)
    return f"| {machines} | {machines * slots} | {count / (ended_s - began_s):.0f} | {each} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=5000)
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--slots", type=int, default=2, help="of each machine")
    options = parser.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="driver-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        base = Path(name) / "in"
        files = [base / f"day-{number // 100:03}" / f"clip-{number:05}.mp4" for number in range(options.recordings)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"0")
        for machines in options.machines:
            print(measure(files, base, Path(name) / f"out-{machines}", machines, options.slots), flush=True)


if __name__ == "__main__":
    main()
