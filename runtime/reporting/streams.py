"""Standard streams that accept any text, and report when they cannot be written to."""

from __future__ import annotations

import codecs
import io
import os
import sys

from ovavel.runtime.reporting.text import encodable

__all__ = ["READABLE", "prepare_streams"]

READABLE = "ovavel.readable"
"""Name of the error handler for `open`, `str.encode` and streams that spells out what an encoding lacks."""

_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "…": "~", "×": "x", "·": "-", "→": "->", "≤": "<=", "≥": ">=", "’": "'", "“": '"', "”": '"'}
)


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Write typographic characters in plain form, bytes that are not UTF-8 as `\\xe4`, others as `\\u4e2d`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = encodable(error.object[error.start : error.end]).translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(READABLE, _spell_out)


def prepare_streams() -> None:
    """Make standard output and error accept any text, and reopen closed ones.

    Writing to a closed standard output fails, so that a command cannot lose its results and still succeed. The file
    descriptors of closed streams are occupied, because otherwise the next opened file would become standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)  # the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)
