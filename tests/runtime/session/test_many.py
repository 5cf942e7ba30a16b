"""Many cameras in one process use one backend: each adds its decoder and queues, and no weights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ovavel.eval.demo.assets import Assets

ROOT = Path(__file__).parents[3]
CLIP = ROOT / "eval" / "demo" / "assets" / "clip.mp4"
MOST_MB = 60
"""A camera of this size takes 15."""


def test_a_camera_adds_little_memory() -> None:
    # In a process of its own: the memory of other tests is not the cameras'.
    command = [
        sys.executable,
        "-m",
        "tests.runtime.session.many",
        str(CLIP),
        "--bundle",
        str(Assets.open().bundle.path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    numbers = re.fullmatch(r"(\d+) MB loaded, (\d+) MB at the peak with 10 cameras: ([\d.]+) MB each\n", done.stdout)
    assert numbers, done.stdout
    loaded_mb, peak_mb, camera_mb = map(float, numbers.groups())
    assert 10 < loaded_mb < peak_mb
    assert 0 < camera_mb < MOST_MB
