"""The demo as a command, and worlds of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from conftest import NAMES

from ovavel.eval.demo.assets import Truth

SECONDS = 12

PLAY = """
import sys
from pathlib import Path
from ovavel.eval.demo import assets
assets.Assets.open.__func__.__defaults__ = (Path(sys.argv.pop(1)),)
from ovavel.runtime.cli import main
raise SystemExit(main(["demo", *sys.argv[1:]]))
"""


def write_truth(folder: Path, **changes: Any) -> None:
    fields = {"names": NAMES, "duration_s": float(SECONDS), "labels": ("",) * SECONDS} | changes
    (folder / "truth.json").write_bytes(msgspec.json.encode(Truth(**fields)))


def demo(world: Path, *arguments: object, prelude: str = "", **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", prelude + PLAY, str(world), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
