"""Reads what folders an archive has, and the headers of its days."""

from __future__ import annotations

import os
from pathlib import Path

from ovavel.runtime.archive.layout import HEADER, VERSION, Header
from ovavel.runtime.errors import InputError
from ovavel.runtime.system.untrusted import read_json

__all__ = ["DayGoneError", "folders_in", "read_header"]

_MOST_HEADER_BYTES = 65_536


class DayGoneError(InputError):
    """A day that is not there: it was removed after it had been listed, or has not begun."""


def folders_in(path: Path) -> list[str]:
    """Return the names of the folders in `path`, in order.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check who may read it") from error


def read_header(folder: Path) -> Header:
    """Read the header of the day in `folder`.

    Raises:
        DayGoneError: there is none.
        InputError: it is damaged or of another version.
    """
    path = folder / HEADER
    try:
        with path.open("rb") as file:
            header = read_json(file.read(_MOST_HEADER_BYTES), Header)
    except FileNotFoundError as error:
        raise DayGoneError(f"{path} is not there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not the header of a day ({error}): restore it, or remove that folder") from error
    if header.version != VERSION:
        raise InputError(
            f"{path} has version {header.version}, and this ovavel reads {VERSION}: use the one that wrote it"
        )
    return header
