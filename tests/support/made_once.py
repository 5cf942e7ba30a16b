"""What is dear to make is made once, by the first test process that needs it, and read by all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["made_once"]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name`, which `make` has filled; the workers of pytest-xdist share it: do not change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, aside = root / name, root / f"{name}.part"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system, should this process die
        if not folder.exists():
            shutil.rmtree(aside, ignore_errors=True)  # of one that died
            aside.mkdir()
            make(aside)
            aside.rename(folder)
    return folder
