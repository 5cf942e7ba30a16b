"""What Ray costs beside shards with the same slots: `python -m tests.runtime.scale.overhead --clips 500 --rounds 2`.

Both localize copies of the demo's clip with one thread a slot, in turn, from the start of the command to its end; the
first of a round changes from round to round. Beside wall time is the time for which the processors of the whole machine
were busy, so nothing else may run: Ray does not wait for its workers, so their own time is in no account.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

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
    # Ray's processes outlive the one that began them; here they are waited for.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    walls: dict[str, list[float]] = {"shards": [], "ray": []}
    busy: dict[str, list[float]] = {"shards": [], "ray": []}
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
                wall_s, busy_s = _run(way, recordings, out, options.slots)
                walls[way].append(wall_s)
                busy[way].append(busy_s)
                done = len(list((out / "done").iterdir()))
                assert done == options.clips, f"{way}: {done} of {options.clips} done"
                shutil.rmtree(out)
                times = f"{wall_s:.1f} s, processors busy for {busy_s:.1f} s"
                print(f"round {turn + 1}, {way}: {times}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{options.clips} clips, {options.slots} slots, {options.rounds} rounds")
    for what, times_s in (("wall time", walls), ("processors busy", busy)):
        shards, ray = (sum(each) / len(each) for each in times_s.values())
        print(f"{what}: shards {shards:.1f} s, Ray {ray:.1f} s: {ray / shards - 1:+.1%}")


def _run(way: str, recordings: Path, out: Path, slots: int) -> tuple[float, float]:
    """Seconds on the wall, and those for which processors were busy until its last process had ended."""
    own = [*OVAVEL, "localize", str(recordings), "--bundle", str(ASSETS / "bundle"), "--out", str(out)]
    own += ["--device", "cpu", "--threads", "1", "--format", "json"]
    commands: Sequence[list[str]] = [[*own, "--on", "auto"]]
    if way == "shards":
        commands = [[*own, "--shard", f"{number}/{slots}"] for number in range(slots)]
    start_s, before_s = time.monotonic(), _busy_s()
    processes = [subprocess.Popen(each, stdout=subprocess.DEVNULL) for each in commands]
    codes = [process.wait() for process in processes]
    assert not any(codes), f"{way} ended with {codes}"
    wall_s = time.monotonic() - start_s
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return wall_s, _busy_s() - before_s


def _busy_s() -> float:
    """For how long the machine's processors were busy since it started, all of them together."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


if __name__ == "__main__":
    main()
