"""Runs of `ovavel localize` over many recordings, in processes that a test kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovavel.runtime.scale.done import recording_id
from ovavel.runtime.scale.job import Recording, Request
from ovavel.runtime.sources.media.fingerprint import fingerprint
from support.media_factory import make_clip

__all__ = [
    "BUNDLE",
    "POISON",
    "REQUEST",
    "contents",
    "identity",
    "make_recordings",
    "poisonous",
    "run",
    "started",
    "store_contents",
    "wait_until",
]

BUNDLE = Path(__file__).parents[2] / "eval" / "demo" / "assets" / "bundle"
OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import program; program()")
POISON = "poison.mp4"
"""Name of a recording that is white, see `poisonous`."""
REQUEST = Request(
    bundle_sha256="ab",
    backend="onnxruntime",
    precision=None,
    senses=("audio",),
    channel="auto",
    lag=2,
    fusion=None,
    rules={},
    economy=("exact", None),
    formats=("json",),
)
"""Of records that no run has made."""

_BACKEND = '''
"""ONNX Runtime, except that a white picture ends the process, as a fault in a library would."""

import os
import signal

from ovavel.runtime.backends.onnxruntime.backend import open_onnxruntime


class Poisonous:
    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def vision(self, frames):
        if frames.min() > 1.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._backend.vision(frames)


def open_poisonous(bundle, **options):
    return Poisonous(open_onnxruntime(bundle, **options))
'''


def make_recordings(folder: Path, count: int, *, poison: bool = False) -> Path:
    """Fill `folder` with recordings of three seconds, in folders of four; `poison` adds a white one."""
    for number in range(count):
        place = folder / f"day {number // 4}"
        place.mkdir(parents=True, exist_ok=True)
        if number == 0:
            first = make_clip(place / "clip-0.mp4", duration_s=3, fps=5)
        else:
            shutil.copy(first, place / f"clip-{number}.mp4")
    if poison:
        make_clip(folder / POISON, duration_s=3, fps=5, picture=lambda t: np.full((120, 160, 3), 255, np.uint8))
    return folder


def poisonous(folder: Path) -> dict[str, str]:
    """Install the backend "poisonous" into `folder`; returns the variables that let other processes find it."""
    metadata = folder / "poisonous-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: poisonous\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[ovavel.backends]\npoisonous = poisonous:open_poisonous\n")
    (folder / "poisonous.py").write_text(_BACKEND)
    return {"PYTHONPATH": str(folder)}


def _words(recordings: Path | str, out: Path | str, *options: str) -> list[str]:
    own = ["localize", str(recordings), "--bundle", str(BUNDLE), "--out", str(out), "--device", "cpu", "--threads", "1"]
    return [*OVAVEL, *own, "--format", "json", "html", *options]


def run(
    recordings: Path | str,
    out: Path | str,
    *options: str,
    variables: dict[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Localize to the end, in a process of its own, in the working directory `folder`."""
    return subprocess.run(
        _words(recordings, out, *options),
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        timeout=250,
        cwd=folder,
    )


@contextlib.contextmanager
def started(
    recordings: Path | str, out: Path | str, *options: str, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Begin to localize; what still runs at the end is killed."""
    process = subprocess.Popen(
        _words(recordings, out, *options),
        env=os.environ | (variables or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Look until `condition` holds or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.002)


def identity(recording: Recording) -> str:
    """The id of a recording on this machine."""
    return recording_id(recording, fingerprint(Path(recording.path)))


def contents(out: Path) -> dict[str, bytes]:
    """Every file below `out`, but for what lies aside."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.parent.name != "aside"
    }


def store_contents(store: Any) -> dict[str, bytes]:
    """Every object in a store of obstore, by name."""
    names = [each["path"] for page in store.list() for each in page]
    return {name: bytes(store.get(name).bytes()) for name in sorted(names)}
