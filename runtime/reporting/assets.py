"""Style sheets and scripts, stored as files beside the code that uses them."""

from __future__ import annotations

from functools import cache
from importlib import resources

__all__ = ["asset"]


@cache
def asset(package: str, name: str) -> str:
    """Return the text of the file `name` in a package, as in `asset(__package__, "style.css")`."""
    return (resources.files(package) / name).read_text(encoding="utf-8")
