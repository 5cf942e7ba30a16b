"""What the service costs and how soon it shows what it decides: `python -m tests.service.measure --cameras 1 2 4 8`.

Each number of cameras plays the demo's clip for a minute. Times of the CPU are read beside wall times, so that a
machine that does other things as well spoils only the latter.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ovavel.service.store.database import FILE, Transaction, open_readonly, rows

ASSETS = Path(__file__).parents[2] / "eval" / "demo" / "assets"
OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")
PARTS = {"ovavel.service.encoding.child": "encoder", "ovavel.service.capture.child": "capture"}
OPEN_S = 300.0
LOOK_S = 0.002
"""The store is looked at so often: how late a commit may be noticed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one number of cameras showed."""

    cameras: int
    windows: int
    """That were decided on."""
    dropped: int
    cpu_s: dict[str, float]
    """Service, encoder and capture."""
    shown_ms: tuple[float, ...]
    """From a row of the event log in the store to a reader of the stream."""
    commits: int
    """Transactions of all writers."""
    commit_s: float
    """How long these took to reach the disk, together."""
    whole_ms: tuple[float, ...]
    """From the end of the window that brought the news to a reader of the stream."""

    @property
    def line(self) -> str:
        """A row of a table."""
        each = [f"{self.cpu_s[part] / max(1, self.windows):.1%}" for part in ("service", "encoder", "capture")]
        late = [_percentiles(times) for times in (self.shown_ms, self.whole_ms)]
        held = "yes" if not self.dropped else f"no: {self.dropped} dropped"
        commit = f"{1e3 * self.commit_s / max(1, self.commits):.1f}"
        cells = (str(self.cameras), str(self.windows), held, *each, commit, *late, str(len(self.shown_ms)))
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| cameras | windows | held | service, of a core a camera | encoder | capture | commit, ms "
    "| store → reader, p50 / p99 ms | window → reader, p50 / p99 ms | news |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Running:
    """The service with so many cameras."""

    def __init__(self, folder: Path, cameras: int, bundle: Path) -> None:
        self.data, self.ids = folder / "data", [f"camera-{number}" for number in range(cameras)]
        lines = [f'bundle = "{bundle}"', 'data = "data"', 'listen = "127.0.0.1:0"']
        for each in self.ids:
            lines += ["[[camera]]", f'id = "{each}"', f'source = "{ASSETS / "clip.mp4"}"', "loop = true"]
        (folder / "site.toml").write_text("\n".join([*lines, ""]))
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*OVAVEL, "serve", str(folder / "site.toml")], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout
        started = next((line for line in self.process.stdout if line.startswith("watching ")), None)
        if started is None:
            raise SystemExit((folder / "log").read_text())
        self.address = started.split()[-1]
        self.capacity = next((line for line in (folder / "log").read_text().splitlines() if "manages" in line), "")

    def wait(self) -> None:
        """Wait until every camera has had a decision."""
        end_s = time.monotonic() + OPEN_S
        while time.monotonic() < end_s:
            with urllib.request.urlopen(f"{self.address}api/v1/cameras", timeout=60) as answer:
                if all(each["last_final_us"] for each in json.load(answer)):
                    return
            time.sleep(0.5)
        raise SystemExit(f"not every camera was watched within {OPEN_S:.0f} s")

    def cpu_s(self) -> Counter[str]:
        """CPU seconds so far, by part."""
        service = psutil.Process(self.process.pid)
        used = Counter[str]({"service": _cpu_s(service)})
        for child in service.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                part = next((part for module, part in PARTS.items() if module in child.cmdline()), "other")
                used[part] += _cpu_s(child)
        return used

    def commits(self) -> tuple[int, float]:
        """How many transactions there were, and how long they took to reach the disk."""
        with urllib.request.urlopen(f"{self.address}metrics", timeout=60) as answer:
            figures = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        return int(float(figures["ovavel_db_commit_seconds_count"])), float(figures["ovavel_db_commit_seconds_sum"])

    def windows(self, store: Transaction) -> tuple[int, int]:
        """How many were decided on, and how many dropped."""
        ((final, windows),) = rows(store, "SELECT sum(final), sum(seconds) FROM account")
        return final, windows - final

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Latency:
    """When news is in the store, and when a reader of the stream has it."""

    def __init__(self, running: Running) -> None:
        self._running, self._ended = running, threading.Event()
        self._stored: dict[int, float] = {}
        self._read: dict[int, tuple[float, float]] = {}
        """Number in the log → when it was read, and when its window was complete."""
        self._stream = urllib.request.urlopen(f"{running.address}api/v1/stream", timeout=60)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._look, self._listen)]
        for thread in self._threads:
            thread.start()

    def close(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Milliseconds from the store, and from the end of the window."""
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        self._stream.close()
        both = sorted(self._stored.keys() & self._read.keys())
        return (
            tuple(1e3 * max(0.0, self._read[seq][0] - self._stored[seq]) for seq in both),
            tuple(1e3 * (self._read[seq][0] - self._read[seq][1]) for seq in both),
        )

    def _look(self) -> None:
        with contextlib.closing(open_readonly(self._running.data / FILE)) as store:
            ((newest,),) = rows(store, "SELECT coalesce(max(seq), 0) FROM event_log")
            version = None
            while not self._ended.wait(LOOK_S):
                (found,) = rows(store, "PRAGMA data_version")
                if found == version:
                    continue
                version, now_s = found, time.time()
                for (seq,) in rows(store, "SELECT seq FROM event_log WHERE seq > ? ORDER BY seq", (newest,)):
                    self._stored[seq] = now_s
                    newest = seq

    def _listen(self) -> None:
        kind = b""
        for line in self._stream:
            if self._ended.is_set():
                return
            if line.startswith(b"event:"):
                kind = line[6:].strip()
            elif line.startswith(b"data:") and kind == b"event":
                now_s, entry = time.time(), json.loads(line[5:])
                self._read[entry["seq"]] = now_s, entry["utc_us"] / 1e6


def measure(cameras: int, seconds: float, bundle: Path) -> tuple[Measured, str]:
    """Measure so many cameras for so long; what the service says of its capacity comes with it."""
    with tempfile.TemporaryDirectory() as name, _running(Path(name), cameras, bundle) as running:
        with contextlib.closing(open_readonly(running.data / FILE)) as store:
            running.wait()
            latency = Latency(running)
            before, cpu_before, commits_before = running.windows(store), running.cpu_s(), running.commits()
            time.sleep(seconds)
            after, cpu_after, commits_after = running.windows(store), running.cpu_s(), running.commits()
            shown, whole = latency.close()
            measured = Measured(
                cameras=cameras,
                windows=after[0] - before[0],
                dropped=after[1] - before[1],
                cpu_s=dict(cpu_after - cpu_before),
                shown_ms=shown,
                commits=commits_after[0] - commits_before[0],
                commit_s=commits_after[1] - commits_before[1],
                whole_ms=whole,
            )
    return measured, running.capacity


@contextlib.contextmanager
def _running(folder: Path, cameras: int, bundle: Path) -> Iterator[Running]:
    running = Running(folder, cameras, bundle)
    try:
        yield running
    finally:
        running.stop()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _percentiles(times: Sequence[float]) -> str:
    return " / ".join(f"{each:.0f}" for each in np.percentile(times, (50, 99))) if times else "–"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bundle", type=Path, default=ASSETS / "bundle", help="the demo's by default")
    parsed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the service is ended, too
    print(HEAD, flush=True)
    for cameras in parsed.cameras:
        measured, capacity = measure(cameras, parsed.seconds, parsed.bundle.resolve())
        print(measured.line, f"<!-- {capacity} -->" if capacity else "", flush=True)
        if measured.dropped:
            break  # more cannot be held either
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
