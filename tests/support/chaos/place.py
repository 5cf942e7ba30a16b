"""A service with its cameras, its disk, its clock and its receivers, all of which can be hurt."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from ovavel.runtime.types import LAG, WINDOW_S
from ovavel.service.failpoints import VARIABLE
from ovavel.service.store.database import FILE, Transaction, open_readonly, rows
from ovavel.service.watch.runs.camera_watch import CLOCK_STEP
from support.chaos.camera import FaultyCamera, make_films
from support.chaos.clock import Clock
from support.chaos.receivers import Receivers
from support.faulty_link import FaultyLink
from support.service import CLIP, DEMO

__all__ = ["CAMERAS", "TERM_S", "Place"]

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")
CAMERAS = ("yard", "gate", "hall")
"""Over HTTP through links that can fail; the last one is a file."""
RECOVERED_S = 180.0
"""Longer than any recovery: a camera that was lost is tried again after a minute at most."""
TERM_S = 10.0
_DECIDED_US = round((LAG + WINDOW_S) * 1e6)
"""So long after a second began its decision is final."""


class Place:
    """A service that runs in `folder`, whose store may be a disk of its own."""

    def __init__(self, folder: Path, seed: int, *, small_disk: bool = False) -> None:
        self.folder, self.data, self.small_disk = folder, folder / "data", small_disk
        films = make_films(Path(CLIP), folder, lambda command: subprocess.run(command, check=True))
        self.cameras = [FaultyCamera(Path(CLIP), start_s, films, seed=seed) for start_s in (29.0, 6.9)]
        self.links = [FaultyLink(int(camera.url.split(":")[2].split("/")[0]), seed=seed) for camera in self.cameras]
        self.clock, self.receivers = Clock(folder), Receivers(folder, seed)
        self.site = folder / "site.toml"
        self.write_site(CAMERAS)
        self.process: subprocess.Popen[str] | None = None
        self.address = ""
        self.restarts = 0
        self.slowest_end_s = 0.0
        """How long SIGTERM took to end it, at most."""
        self.heard: dict[str, int] = {}
        """Event → the newest revision that a reader was shown: none of these may be missing later."""

    def write_site(self, cameras: tuple[str, ...]) -> None:
        """Write the site file with some of `CAMERAS`."""
        sources = [*(f"http://127.0.0.1:{link.port}/live.ts" for link in self.links), CLIP]
        lines = [f'bundle = "{DEMO / "bundle"}"', f'data = "{self.data.name}"', 'listen = "127.0.0.1:0"', "threads = 1"]
        # Few clips: the oldest are removed all the time.
        lines += ['log = "json"', "[keep]", "clips_gb = 0.003"]
        for name, source in zip(CAMERAS, sources, strict=True):
            if name in cameras:
                lines += ["[[camera]]", f'id = "{name}"', f'source = "{source}"']
                lines += ["loop = true"] if source == CLIP else []
        self.site.write_text("\n".join([*lines, *self.receivers.lines, ""]))

    def launch(self, failpoint: str = "") -> subprocess.Popen[str]:
        """Start the service, and do not wait."""
        self.restarts += 1
        environment = {**os.environ, **self.clock.environment, **({VARIABLE: failpoint} if failpoint else {})}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*OVAVEL, "serve", str(self.site)], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        return self.process

    def start(self, failpoint: str = "") -> None:
        """Start the service and wait for its page; it may die at `failpoint` at any time afterwards."""
        process = self.launch(failpoint)
        assert process.stdout
        for line in process.stdout:
            if line.startswith("watching "):
                self.address = line.split()[-1]
                return
        process.wait(TERM_S)  # a failpoint was reached before the page was up

    def refused(self) -> str:
        """Start a service that must not start; returns what it says.

        Raises:
            AssertionError: it started, or failed without a plain reason.
        """
        before = (self.folder / "log").stat().st_size
        process = self.launch()
        assert process.stdout
        started = any(line.startswith("watching ") for line in process.stdout)
        code = process.wait(TERM_S * 3) if not started else None
        said = (self.folder / "log").read_bytes()[before:].decode()
        assert not started, "it started all the same"
        assert code in (1, 2), f"it ended with {code}: {said}"
        assert "Traceback" not in said, said
        return said

    def kill(self) -> None:
        """SIGKILL, as a power cut is for the process."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def ask(self, path: str) -> Any:
        """JSON of the API; None where it does not answer."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=10) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def page(self, path: str) -> str:
        """A page, or whatever else is text.

        Raises:
            AssertionError: the service does not answer.
        """
        try:
            with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                return str(answer.read().decode())
        except OSError as error:
            raise AssertionError(f"{path} is not shown: {error}") from error

    def reload(self) -> None:
        """Ask the service to read its site file again."""
        assert self.process
        self.process.send_signal(signal.SIGHUP)

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
        """Whether a second of the camera that began after `asked_us` was decided on, with picture and sound."""
        finals = {each["id"]: each["last_final_us"] for each in self.ask("api/v1/cameras") or ()}
        seconds = [each for each in self.ask(f"api/v1/cameras/{camera}/seconds") or () if each["final"]]
        whole = asked_us + _DECIDED_US < finals.get(camera, 0) <= self.clock.now_us  # which may have been set back
        return whole and bool(seconds) and not seconds[-1]["missing"]

    def reader(self) -> Transaction:
        """A connection to the store, beside the service."""
        return open_readonly(self.data / FILE)

    def without_windows(self) -> dict[str, int]:
        """Microseconds for which no window of a camera came, but for those that a clock left out."""
        query = "SELECT camera_id, sum(value) FROM account, json_each(account.gap_us) WHERE key <> ? GROUP BY camera_id"
        with contextlib.closing(self.reader()) as reader:
            return dict.fromkeys(CAMERAS, 0) | dict(rows(reader, query, (CLOCK_STEP,)))

    def dropped(self, cause: str) -> int:
        """Windows of all cameras that were dropped for this cause."""
        query = "SELECT coalesce(sum(value), 0) FROM account, json_each(account.dropped) WHERE key = ?"
        with contextlib.closing(self.reader()) as reader:
            return int(rows(reader, query, (cause,))[0][0])

    def recovered(self) -> float | None:
        """Wait until whole seconds of every camera are decided again; how long that took, None if it did not happen."""
        began_s, asked_us = time.monotonic(), self.clock.now_us
        while time.monotonic() < began_s + RECOVERED_S:
            if self.process and self.process.poll() is not None:
                self.start()
            if all(self.whole_since(camera, asked_us) for camera in CAMERAS):
                self.listen()
                return time.monotonic() - began_s
            time.sleep(0.2)
        return None

    def end(self, *, signals: int = 1) -> int:
        """SIGTERM, so many times; the exit code, or the signal that was needed in the end."""
        assert self.process
        began_s = time.monotonic()
        for _ in range(signals):
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.3)
        try:
            return self.process.wait(TERM_S * 3)  # three times as long on a busy machine; the figure is reported
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.slowest_end_s = max(self.slowest_end_s, time.monotonic() - began_s)

    def close(self) -> None:
        """End everything."""
        if self.process and self.process.poll() is None:
            self.kill()
        for each in (*self.links, *self.cameras, self.receivers):
            each.close()
