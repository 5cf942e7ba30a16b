"""Where an ONNX file says its weights lie, read without the onnx library.

A hostile graph may name any file as its external data; a bundle trusts only files it lists. The reader walks the
protobuf fields of onnx.proto that lead to a tensor and skips everything else, so that large weights are never read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.errors import BundleError

__all__ = ["external_data"]

# Message → number of a field → message of that field, as onnx.proto has them
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 64


def external_data(path: Path) -> frozenset[str]:
    """Return the locations of external data that the ONNX file `path` names.

    Raises:
        BundleError: it is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return frozenset(_locations(data, 0, len(data), "Model", 0))
    except (ValueError, IndexError) as error:
        raise BundleError(f"{path} is not an ONNX file ({error}); export or copy the bundle again") from error


def _locations(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for number, first, last in _fields(data, start, end):
        field = _FIELDS[message].get(number)
        if field == "Entry":
            entry = {key: data[begin:stop] for key, begin, stop in _fields(data, first, last)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode("utf-8")
        elif field:
            yield from _locations(data, first, last, field, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every length-delimited field of one message."""
    while start < end:
        tag, start = _varint(data, start)
        kind = tag & 7
        if kind == _VARINT:
            _, start = _varint(data, start)
        elif kind == _BYTES:
            size, start = _varint(data, start)
            if start + size > end:
                raise ValueError("a field is cut off")
            yield tag >> 3, start, start + size
            start += size
        elif kind in (_FIXED32, _FIXED64):
            start += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError("a number is too long")
