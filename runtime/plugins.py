"""What installed packages provide: their entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

__all__ = ["plugins"]


def plugins(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of `group`. Those of a package that is installed later are found by the next process."""
    return _read(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _read(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """A file of each package is read: ten milliseconds where there are a hundred of them."""
    return tuple(entry_points(group=group))
