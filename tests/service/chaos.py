"""Faults by chance on a running service, and what must hold after each: `python -m tests.service.chaos --seed 1`.

The same seed gives the same faults in the same order; how long each takes depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.faulty_link import LINK_FAULTS, FaultyLink, LinkFault  # noqa: E402
from support.service import CLIP, DEMO  # noqa: E402

from ovavel.eval.demo.cameras.http import HTTPCamera  # noqa: E402
from ovavel.service.failpoints import VARIABLE  # noqa: E402
from ovavel.service.store.database import BALLAST_BYTES, FILE, Database, Transaction, open_readonly, rows  # noqa: E402
from ovavel.service.store.invariants import violations  # noqa: E402

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")
CAMERAS = ("yard", "gate", "hall")
"""Over HTTP through links that can fail; the last one is a file."""
RECOVERED_S = 180.0
"""Longer than any recovery: a camera that was lost is tried again after a minute at most."""
TERM_S = 10.0
COMMIT_FAILPOINTS = ("store.transaction-open", "store.before-commit", "store.after-commit")


@dataclass
class Survived:
    """What a run of faults showed."""

    seed: int
    recoveries_s: dict[str, list[float]] = field(default_factory=dict)
    """Fault → how long until whole seconds of every camera were decided again, each time."""
    events: int = 0
    restarts: int = 0
    wrong: list[str] = field(default_factory=list)
    """What did not hold; empty where all did."""


class Place:
    """A service with its cameras, which can be hurt."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.cameras = [HTTPCamera(Path(CLIP), start_s) for start_s in (29.0, 6.9)]
        self.links = [FaultyLink(int(camera.url.split(":")[2].split("/")[0]), seed=seed) for camera in self.cameras]
        self.site = folder / "site.toml"
        sources = [*(f"http://127.0.0.1:{link.port}/live.ts" for link in self.links), CLIP]
        lines = [
            f'bundle = "{DEMO / "bundle"}"',
            'data = "data"',
            'listen = "127.0.0.1:0"',
            "threads = 1",
            'log = "json"',
        ]
        for name, source in zip(CAMERAS, sources, strict=True):
            lines += ["[[camera]]", f'id = "{name}"', f'source = "{source}"']
        self.site.write_text("\n".join([*lines, "loop = true", ""]))
        self.process: subprocess.Popen[str] | None = None
        self.address = ""
        self.heard: dict[str, int] = {}
        """Event → the newest revision that a reader was shown: none of these may be missing later."""

    def start(self, failpoint: str = "") -> None:
        """Start the service and wait for its page; it may die at `failpoint` at any time afterwards."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*OVAVEL, "serve", str(self.site)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **({VARIABLE: failpoint} if failpoint else {})},
            )
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("watching "):
                self.address = line.split()[-1]
                return
        self.process.wait(TERM_S)  # a failpoint was reached before the page was up

    def ask(self, path: str) -> Any:
        """JSON of the API; None where it does not answer."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=10) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def listen(self) -> None:
        """Note what a reader of the API is shown now."""
        for event in (self.ask("api/v1/events?limit=200") or {"events": []})["events"]:
            self.heard[event["id"]] = max(event["revision"], self.heard.get(event["id"], 0))

    def children(self, module: str) -> list[psutil.Process]:
        """Processes of the service that run `module`."""
        assert self.process
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.process.pid).children(recursive=True)
            return [each for each in found if any(module in word for word in each.cmdline())]
        return []

    def whole_since(self, camera: str, asked_us: int) -> bool:
        """Whether a second of the camera was decided after `asked_us` that lacks neither picture nor sound."""
        finals = {each["id"]: each["last_final_us"] for each in self.ask("api/v1/cameras") or ()}
        seconds = [each for each in self.ask(f"api/v1/cameras/{camera}/seconds") or () if each["final"]]
        return finals.get(camera, 0) > asked_us and bool(seconds) and not seconds[-1]["missing"]

    def reader(self) -> Transaction:
        """A connection to the store, beside the service."""
        return open_readonly(self.folder / "data" / FILE)

    def without_windows(self) -> dict[str, int]:
        """Microseconds for which no window of a camera came, whatever the cause."""
        query = "SELECT camera_id, sum(value) FROM account, json_each(account.gap_us) GROUP BY camera_id"
        with contextlib.closing(self.reader()) as reader:
            return dict.fromkeys(CAMERAS, 0) | dict(rows(reader, query))

    def recovered(self) -> float | None:
        """Wait until whole seconds of every camera are decided again; how long that took, None if it did not happen."""
        began_s, asked_us = time.monotonic(), time.time_ns() // 1000
        while time.monotonic() < began_s + RECOVERED_S:
            if self.process and self.process.poll() is not None:
                self.start()
            if all(self.whole_since(camera, asked_us) for camera in CAMERAS):
                self.listen()
                return time.monotonic() - began_s
            time.sleep(0.2)
        return None

    def end(self) -> int:
        """SIGTERM; the exit code, or the signal that was needed in the end."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(TERM_S * 3)  # three times as long on a busy machine; the figure is reported
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """End everything."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for each in (*self.links, *self.cameras):
            each.close()


Fault = Callable[[Place, random.Random], str | None]
"""Hurts; returns the one camera that may notice, or None if all may."""


def link_fault(kind: LinkFault) -> Fault:
    def hurt(place: Place, chance: random.Random) -> str:
        number = chance.randrange(len(place.links))
        place.links[number].fault = kind
        time.sleep(chance.uniform(2, 8))
        place.links[number].fault = None
        return CAMERAS[number]

    return hurt


def child_fault(module: str, number: signal.Signals) -> Fault:
    def hurt(place: Place, chance: random.Random) -> None:
        if children := place.children(module):
            with contextlib.suppress(psutil.Error):
                chance.choice(children).send_signal(number)

    return hurt


def killed(place: Place, chance: random.Random) -> None:
    assert place.process
    time.sleep(chance.uniform(0, 3))
    place.process.kill()
    place.process.wait()
    place.start()


def killed_at_a_failpoint(place: Place, chance: random.Random) -> None:
    assert place.process
    place.process.kill()
    place.process.wait()
    place.start(f"{chance.choice(COMMIT_FAILPOINTS)}:{chance.randrange(1, 60)}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        place.process.wait(60)
    if place.process.poll() is None:
        raise AssertionError("the failpoint was not reached")
    place.start()


def ended_and_started(place: Place, chance: random.Random) -> None:
    code = place.end()
    place.start()
    if code:
        raise AssertionError(f"SIGTERM ended it with {code}")


def disk_full(place: Place, chance: random.Random) -> None:
    data = place.folder / "data"
    filler = data / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    time.sleep(chance.uniform(5, 15))
    filler.unlink()


def slow_readers(place: Place, chance: random.Random) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(urllib.request.urlopen(place.address + "api/v1/stream", timeout=30))
        time.sleep(5)


FAULTS: dict[str, Fault] = {
    **{f"camera {kind}": link_fault(kind) for kind in LINK_FAULTS},
    "capture killed": child_fault("capture.child", signal.SIGKILL),
    "capture stopped": child_fault("capture.child", signal.SIGSTOP),
    "capture segmentation fault": child_fault("capture.child", signal.SIGSEGV),
    "encoder killed": child_fault("encoding.child", signal.SIGKILL),
    "encoder stopped": child_fault("encoding.child", signal.SIGSTOP),
    "service killed": killed,
    "service killed in a commit": killed_at_a_failpoint,
    "service ended and started": ended_and_started,
    "60 readers that do not read": slow_readers,
}
ON_A_SMALL_DISK: dict[str, Fault] = {"disk full": disk_full}
"""Only where the store has a disk of its own."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk at `folder`; whether that is allowed here."""
    folder.mkdir()
    size = f"size={2 * BALLAST_BYTES + (40 << 20)}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=False)


def run(
    seed: int, *, minutes: float = 0.0, kinds: Sequence[str] = (), report: Callable[[str], object] = print
) -> Survived:
    """Hurt a service for `minutes`, by faults drawn with `seed`; or by each of `kinds` once."""
    survived, chance = Survived(seed), random.Random(seed)
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "data") as disk:
        faults = FAULTS | (ON_A_SMALL_DISK if disk else {})
        place = Place(Path(name), seed)
        try:
            place.start()
            if place.recovered() is None:
                survived.wrong.append("it did not begin to watch")
            end_s = time.monotonic() + 60 * minutes
            wanted = list(kinds)
            while not survived.wrong and (wanted if kinds else time.monotonic() < end_s):
                kind = wanted.pop(0) if kinds else chance.choice(sorted(faults))
                if kind not in faults:
                    report(f"{kind}: left out, no disk can be mounted here")
                    continue
                before, hurt = place.without_windows(), None
                try:
                    hurt = faults[kind](place, chance)
                except AssertionError as error:
                    survived.wrong.append(f"{kind}: {error}")
                took_s = place.recovered()
                if took_s is None:
                    survived.wrong.append(f"{kind}: {place.ask('api/v1/cameras')}")
                    break
                survived.recoveries_s.setdefault(kind, []).append(took_s)
                after = place.without_windows()
                survived.wrong += [
                    f"{kind} of {hurt} took windows from {camera}: {before[camera]} → {after[camera]}"
                    for camera in CAMERAS
                    if hurt not in (None, camera) and after[camera] != before[camera]
                ]
                with contextlib.closing(place.reader()) as reader:
                    survived.wrong += [f"after {kind}: {each}" for each in violations(reader, place.folder / "data")]
                report(f"{kind}: recovered after {took_s:.1f} s, {len(place.heard)} events")
            if code := place.end():
                survived.wrong.append(f"it ended with {code}")
            _check_end(place, survived)
            survived.events = len(place.heard)
        finally:
            place.close()
            if survived.wrong:
                report((Path(name) / "log").read_text()[-4000:])
    return survived


def _check_end(place: Place, survived: Survived) -> None:
    """After the end: nothing is open, and all that any reader was shown is there."""
    with Database.open(place.folder / "data", ballast_bytes=0) as store:
        survived.wrong += violations(store.read, store.folder)
        survived.wrong += [
            f"{event} is still open" for (event,) in rows(store.read, "SELECT id FROM event WHERE state = 'open'")
        ]
        kept = dict(rows(store.read, "SELECT id, revision FROM event"))
        survived.wrong += [
            f"event {event} was shown at revision {revision}, and is kept at {kept.get(event)}"
            for event, revision in place.heard.items()
            if kept.get(event, 0) < revision
        ]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="every fault once, not --minutes of them by chance")
    parsed = parser.parse_args()
    kinds = [*FAULTS, *ON_A_SMALL_DISK] if parsed.each else ()
    survived = run(parsed.seed, minutes=parsed.minutes, kinds=kinds, report=lambda text: print(text, flush=True))
    print(f"\nseed {survived.seed}: {sum(map(len, survived.recoveries_s.values()))} faults, {survived.events} events\n")
    print("| fault | times | longest recovery, s |\n|---|---|---|")
    for kind, seconds in sorted(survived.recoveries_s.items()):
        print(f"| {kind} | {len(seconds)} | {max(seconds):.1f} |")
    for wrong in survived.wrong:
        print(f"! {wrong}")
    return bool(survived.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
