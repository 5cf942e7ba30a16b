"""Paths that no file can have: the system refuses them with an error of Python's own wherever they are used."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

from ovavel.runtime.errors import InputError, OvavelError

__all__ = ["check_path", "check_paths"]

LONGEST_NAME = 255
"""Bytes of a file's name."""


def check_path(path: str | os.PathLike[str], kind: type[OvavelError] = InputError) -> None:
    """Refuse a path that no file can have. Raises `kind`, which says why."""
    if why := _unusable(path):
        raise kind(f"{os.fspath(path)} {why}; check the path")


def _unusable(path: str | os.PathLike[str]) -> str:
    """Why no file can have this path, as in "has a name of 300 bytes"; empty where one can."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return "has characters that no file's name has"
    if b"\0" in name:
        return "has a zero byte"
    longest = max(map(len, name.split(b"/")))
    if longest > LONGEST_NAME:
        return f"has a name of {longest} bytes, and {LONGEST_NAME} are allowed"
    try:
        os.lstat(name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"is too long for this system ({len(name)} bytes)"
    return ""


def check_paths(options: Any) -> None:
    """Refuse a path in the dataclass `options`, or in one inside it, that no file can have.

    Raises:
        InputError: it cannot; says why.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_paths(value)
            continue
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                check_path(path)
