"""What installed packages provide: their entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points

__all__ = ["plugins"]


def plugins(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of `group`. Those of a package that is installed later are found by the next process."""
    return tuple(_read(tuple(sys.path)).select(group=group))


@lru_cache(maxsize=4)
def _read(_path: tuple[str, ...]) -> EntryPoints:
    """A file of each package is read: ten milliseconds where there are a hundred of them."""
    return entry_points()
