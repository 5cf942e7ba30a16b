"""What Ray costs beside shards with the same slots: `python -m tests.runtime.scale.overhead --clips 500 --rounds 2`.

Both localize copies of the demo's clip with one thread a slot, in turn, from the start of the command to its end; the
first of a round changes from round to round. Processor time, of every process that the command begins, is given beside
wall time: what else the machine does spoils it less.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ASSETS = Path(__file__).parents[3] / "eval" / "demo" / "assets"
_SUBREAPER = 36
OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    # Ray's processes outlive the one that began them; here they are waited for, and so counted.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    walls: dict[str, list[float]] = {"shards": [], "ray": []}
    processors: dict[str, list[float]] = {"shards": [], "ray": []}
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        recordings = folder / "in"
        recordings.mkdir()
        shutil.copy(ASSETS / "clip.mp4", recordings / "clip-0000.mp4")
        for number in range(1, options.clips):
            os.link(recordings / "clip-0000.mp4", recordings / f"clip-{number:04}.mp4")
        for turn in range(options.rounds):
            for way in ("shards", "ray") if turn % 2 == 0 else ("ray", "shards"):
                out = folder / "out"
                wall_s, processor_s = _run(way, recordings, out, options.slots)
                walls[way].append(wall_s)
                processors[way].append(processor_s)
                done = len(list((out / "done").iterdir()))
                assert done == options.clips, f"{way}: {done} of {options.clips} done"
                shutil.rmtree(out)
                times = f"{wall_s:.1f} s, {processor_s:.1f} s of processors"
                print(f"round {turn + 1}, {way}: {times}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{options.clips} clips, {options.slots} slots, {options.rounds} rounds")
    for what, times_s in (("wall time", walls), ("processor time", processors)):
        shards, ray = (sum(each) / len(each) for each in times_s.values())
        print(f"{what}: shards {shards:.1f} s, Ray {ray:.1f} s: {ray / shards - 1:+.1%}")


def _run(way: str, recordings: Path, out: Path, slots: int) -> tuple[float, float]:
    """Seconds on the wall and of processors."""
    own = [*OVAVEL, "localize", str(recordings), "--bundle", str(ASSETS / "bundle"), "--out", str(out)]
    own += ["--device", "cpu", "--threads", "1", "--format", "json"]
    commands: Sequence[list[str]] = [[*own, "--on", "auto"]]
    if way == "shards":
        commands = [[*own, "--shard", f"{number}/{slots}"] for number in range(slots)]
    start_s, before_s = time.monotonic(), _children_s()
    processes = [subprocess.Popen(each, stdout=subprocess.DEVNULL) for each in commands]
    codes = [process.wait() for process in processes]
    assert not any(codes), f"{way} ended with {codes}"
    wall_s = time.monotonic() - start_s
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return wall_s, _children_s() - before_s


def _children_s() -> float:
    """Processor time of all children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
