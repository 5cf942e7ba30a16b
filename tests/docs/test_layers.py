"""The drawing of the layers is the one that the import rules enforce."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_rules() -> None:
    drawn = subprocess.run(
        [sys.executable, "docs/layers.py"], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```text\n{drawn.rstrip()}\n```" in page, "run python docs/layers.py --write"
    for layer in ("runtime", "eval", "training", "export", "service"):
        assert f"{layer}/ " in drawn
