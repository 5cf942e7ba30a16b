"""The folder that `--out` names: what a command reports goes into it, under names of its own."""

from __future__ import annotations

from pathlib import Path

from ovavel.runtime.errors import UsageError
from ovavel.runtime.files import make_folder

__all__ = ["report_folder"]

_FILES = frozenset({".csv", ".html", ".json", ".md"})


def report_folder(path: Path, name: str) -> Path:
    """Make the folder `path` and return it; `name` is the file that will be in it.

    Raises:
        UsageError: `path` looks like a file.
        OutputError: it cannot be made.
    """
    if path.suffix.lower() in _FILES and not path.is_dir():
        raise UsageError(f"--out is a folder, and {name} goes into it: give --out {path.stem}, not {path}")
    make_folder(path)
    return path
