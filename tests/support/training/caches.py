"""What the tests of feature caches share."""

from __future__ import annotations

import sys
from pathlib import Path

from ovavel.training.models.imagebind.model import ImageBindConfig

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
