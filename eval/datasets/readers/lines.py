"""Lines of annotation files, with the file and the line that an error was found in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ovavel.eval.datasets.readers.videos import BACKGROUND
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.files import not_regular

__all__ = ["MOST_BYTES", "Line", "read_bytes", "read_lines"]

MOST_BYTES = 512 * 2**20
"""Larger files are no annotations: the largest published ones have a few megabytes."""

_VIDEO = re.compile(r"[^/\\\0.][^/\\\0]*")


class Line:
    """The fields of one line."""

    def __init__(self, path: Path, number: int, fields: Sequence[str]) -> None:
        self.path, self.number, self.fields = path, number, [field.strip() for field in fields]

    def refuse(self, problem: str) -> NoReturn:
        """Raise DatasetError."""
        raise DatasetError(f"{self}: {problem}")

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"

    def video(self, field: int) -> str:
        """The id of a video, which is part of a file's name."""
        name = self.fields[field]
        if not _VIDEO.fullmatch(name):
            self.refuse(f"{quoted(name)} is not a valid video (and file) name")
        return name

    def label(self, text: str) -> str:
        """The name of a class."""
        name = " ".join(text.replace("_", " ").split())
        if not name or not name.isprintable():
            self.refuse(f"{quoted(text)} is not the name of a class")
        if name == BACKGROUND:
            self.refuse(f"a class is called {BACKGROUND!r}, as the background is")
        return name

    def seconds(self, field: int) -> float:
        """A time in seconds."""
        text = self.fields[field]
        plain = text.isascii() and "_" not in text  # Python reads more than anybody writes
        try:
            return float(text if plain else "")
        except ValueError:
            self.refuse(f"{quoted(text)} is not a time in seconds")


def read_bytes(path: Path, what: str) -> bytes:
    """Read a regular file.

    Raises:
        DatasetError: it is missing, not a file, unreadable or too large for annotations.
    """
    try:
        if why := not_regular(path):
            raise DatasetError(f"{path} {why}, not a file; put {what} there")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DatasetError(f"{path} has {size / 1e9:.1f} GB, which is too much for {what}; download it again")
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; put {what} there") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def read_lines(
    path: Path, data: bytes, delimiter: str, columns: Sequence[str], *, or_one: bool = False
) -> Iterator[Line]:
    """Yield the lines that are not empty, each with as many fields as `columns`; a first line of titles is skipped.

    `or_one` takes lines of a single field too.

    Raises:
        DatasetError: a line is not text, or has another number of fields; the error names file and line.
    """
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}, line {number}: not UTF-8 text; download the file again") from error
        if "\0" in text:
            raise DatasetError(f"{path}, line {number}: there are NUL bytes in it; download the file again")
        if not text.strip():
            continue
        fields = Line(path, number, text.split(delimiter))
        if number == 1 and fields.fields[0].casefold() == columns[0].casefold():
            continue
        if len(fields.fields) != len(columns) and not (or_one and len(fields.fields) == 1):
            fields.refuse(
                f"{len(fields.fields)} values instead of {len(columns)} ({', '.join(columns)}), "
                f"separated by {'tabs' if delimiter == chr(9) else quoted(delimiter)}"
            )
        yield fields
