"""Read untrusted JSON and numpy arrays, checking their claims against limits before memory is allocated.

All functions raise only ValueError, with a message that fits into a sentence.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile
from zlib import error as ZlibError

import msgspec
import numpy as np

from ovavel.runtime.reporting.text import one_line, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["brief", "map_array", "read_array", "read_arrays", "read_json"]

_HEADER_BYTES = 4096
"""Largest header of an array of a few dimensions; numpy writes 128 bytes."""
_MOST_ARRAYS = 4096
_LONGEST_MESSAGE = 300

T = TypeVar("T")


def brief(error: Exception) -> str:
    """Return a library's error message, short and on one line: it may quote the file."""
    return one_line(str(error))[:_LONGEST_MESSAGE]


def read_json(data: bytes, kind: type[T]) -> T:
    """Decode JSON strictly: duplicate names in an object are refused, because readers differ in which one counts."""
    try:
        json.loads(data.decode(), object_pairs_hook=_distinct)
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(brief(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]  # counting each would take hours
        raise ValueError(f"{quoted(name)} occurs twice")
    return found


def read_array(data: bytes) -> NDArray[Any]:
    """Read the bytes of an `.npy` file, which must be exactly as many as its header claims; read-only."""
    shape, fortran, kind, offset = _header(data[:_HEADER_BYTES], len(data))
    flat: NDArray[Any] = np.frombuffer(data, kind, offset=offset)
    return flat.reshape(shape, order="F" if fortran else "C")


def map_array(path: Path) -> NDArray[Any]:
    """Map an `.npy` file, which must be exactly as large as its header claims, into memory; read-only.

    Raises:
        ValueError: it is not a valid array file.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        shape, fortran, kind, offset = _header(file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size)
        if not math.prod(shape):  # an empty array cannot be mapped
            return np.zeros(shape, kind)
        return np.memmap(file, kind, "r", offset, shape, "F" if fortran else "C")


def _header(start: bytes, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of an array from the `start` of a file of `size` bytes.

    Returns shape, whether the values are in Fortran order, dtype, and the offset of the values.
    """
    file = io.BytesIO(start)  # numpy would read as much of a real file as the header claims
    try:
        version = np.lib.format.read_magic(file)
    except (ValueError, EOFError) as error:
        raise ValueError("it is not a numpy array") from error
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"it has version {version}")
    try:
        shape, fortran, kind = read_header(file, max_header_size=_HEADER_BYTES)
    except (ValueError, SyntaxError, TokenError, TypeError, RecursionError, MemoryError, EOFError) as error:
        raise ValueError("its header is damaged") from error  # numpy's advice is to trust it
    if kind.hasobject or not kind.itemsize or len(shape) > 32 or min(shape, default=0) < 0:
        raise ValueError(f"it contains {kind} in the shape {shape}")
    claimed, there = math.prod(shape) * kind.itemsize, size - file.tell()
    if claimed != there:
        raise ValueError(f"its header claims {claimed} bytes, and {there} follow")
    return shape, fortran, kind, file.tell()


def read_arrays(data: bytes, most_bytes: int) -> Mapping[str, NDArray[Any]]:
    """Read the bytes of an `.npz` file, if it unpacks to no more than `most_bytes`."""
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            claimed = sum(member.file_size for member in members)  # zipfile unpacks no more than that
            if claimed > most_bytes or len(members) > _MOST_ARRAYS:
                raise ValueError(f"it unpacks to {claimed} bytes in {len(members)} arrays, which is far too much")
            if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
                # An LZMA header may require gigabytes.
                raise ValueError("it is compressed in a way that numpy does not use")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("an array occurs twice")
            return {member.filename.removesuffix(".npy"): read_array(archive.read(member)) for member in members}
    except (BadZipFile, ZlibError, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"it is not an archive of arrays: {error}") from error
