"""Bundles without gates."""

from __future__ import annotations

import json
from pathlib import Path

from ovavel.runtime.bundle.bundle import Bundle


def without_gates(folder: Path) -> Bundle:
    content = json.loads((folder / "manifest.json").read_text())
    content["parity"].pop("gates")
    (folder / "manifest.json").write_text(json.dumps(content))
    return Bundle.open(folder)
