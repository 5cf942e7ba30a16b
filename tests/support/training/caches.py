"""What the tests of feature caches share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.training.models.imagebind.model import ImageBindConfig
from support.ovavebench_factory import make_bench
from support.scaled import BUNDLE, poisonous

TINY = ImageBindConfig.tiny()
SHARD = 3
CLASSES = {"seen": ("cat purring", "race car"), "unseen": ("dog barking",)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")
"""Also works where the environment's scripts are not on the PATH."""


def command(data: Path, weights: Path, out: Path) -> list[str]:
    options = ["--config", "tiny", "--device", "cpu", "--batch", "2", "--threads", "1", "--shard-clips", str(SHARD)]
    return ["train", "features", "--data", str(data), "--weights", str(weights), "--out", str(out), *options]


def demo_command(data: Path, out: Path, *options: str) -> list[str]:
    """Encode the validation clips with the demo's bundle, by a backend that white pictures kill."""
    encoders = [
        "--bundle",
        str(BUNDLE),
        "--backend",
        "poisonous",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--workers",
        "1",
    ]
    words = [
        "train",
        "features",
        "--data",
        str(data),
        "--out",
        str(out),
        "--splits",
        "val",
        "--shard-clips",
        str(SHARD),
    ]
    return [*OVAVEL, *words, *encoders, "--shard-clips", str(SHARD), *options]


def run(words: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words, env=os.environ | variables, capture_output=True, text=True, timeout=500)


@contextlib.contextmanager
def started(words: list[str], variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a command; what still runs at the end is killed."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, env=os.environ | variables, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


_FAULTY_DECODER = """
# Opening a picture of this name as a picture ends the process, as a fault in a decoder would.
import os
import signal
import sys


def _look(event, arguments):
    if event == "open" and "faulty" in str(arguments[0]):
        if sys._getframe(1).f_code.co_filename.endswith(os.path.join("PIL", "Image.py")):
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_look)
"""


def poisoned(folder: Path) -> tuple[Path, Path, dict[str, str], list[str]]:
    """Return a dataset, the same with two clips that end what encodes and what decodes them, variables and their names.

    Both clips are of the first shard of the validation clips. With the variables, other processes have the backend
    "poisonous" and the faulty decoder.
    """
    good = make_bench(folder / "good", **CLASSES)
    bad = Path(shutil.copytree(good, folder / "bad"))
    bench = OVAVEBench.open(bad)
    white, faulty = bench.select("val")[:2]
    for frame in bench.frames_dir(white).iterdir():
        Image.fromarray(np.full((36, 48, 3), 255, np.uint8)).save(frame)
    first = min(bench.frames_dir(faulty).iterdir())
    first.rename(first.with_stem(f"{first.stem}faulty"))
    variables = poisonous(folder / "installed")
    (folder / "installed" / "sitecustomize.py").write_text(_FAULTY_DECODER)
    return good, bad, variables, sorted((white.name, faulty.name))
