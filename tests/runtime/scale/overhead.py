"""What Ray costs beside shards with the same slots: `python -m tests.runtime.scale.overhead --clips 500 --rounds 2`.

Both localize copies of the demo's clip with one thread a slot, in turn, from the start of the command to its end. A
machine that does other things as well slows both down; the first of a round changes from round to round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ASSETS = Path(__file__).parents[3] / "eval" / "demo" / "assets"
OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    walls: dict[str, list[float]] = {"shards": [], "ray": []}
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
                walls[way].append(_run(way, recordings, out, options.slots))
                done = len(list((out / "done").iterdir()))
                assert done == options.clips, f"{way}: {done} of {options.clips} done"
                shutil.rmtree(out)
                print(f"round {turn + 1}, {way}: {walls[way][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    shards, ray = (sum(each) / len(each) for each in walls.values())
    print(f"{options.clips} clips, {options.slots} slots, {options.rounds} rounds")
    print(f"shards {shards:.1f} s, Ray {ray:.1f} s: {ray / shards - 1:+.1%}")


def _run(way: str, recordings: Path, out: Path, slots: int) -> float:
    own = [*OVAVEL, "localize", str(recordings), "--bundle", str(ASSETS / "bundle"), "--out", str(out)]
    own += ["--device", "cpu", "--threads", "1", "--format", "json"]
    commands: Sequence[list[str]] = [[*own, "--on", "auto"]]
    if way == "shards":
        commands = [[*own, "--shard", f"{number}/{slots}"] for number in range(slots)]
    start_s = time.monotonic()
    processes = [subprocess.Popen(each, stdout=subprocess.DEVNULL) for each in commands]
    codes = [process.wait() for process in processes]
    assert not any(codes), f"{way} ended with {codes}"
    return time.monotonic() - start_s


if __name__ == "__main__":
    main()
