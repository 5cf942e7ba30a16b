"""Reads where an ONNX file stores its weights, without the onnx library.

A hostile graph may hide from a lenient reader what the library that runs it will read. So this reader is strict: of the
many encodings of a message it accepts only the one that protobuf's own libraries write, and only the fields that a
bundle's graphs have. Weights outside the file are allowed only for the initializers of the graph, each in a file beside
it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ovavel.runtime.bundle.onnx_fields import FIELDS, Field
from ovavel.runtime.errors import BundleError

__all__ = ["ExternalTensor", "external_data", "with_addresses"]

_Bytes: TypeAlias = bytes | mmap.mmap

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {"int64": _VARINT, "int32": _VARINT, "float": _FIXED32}
"""Kind of a field → its wire type; all others are length-delimited."""
_PACKED = {field.kind for fields in FIELDS.values() for field in fields.values() if field.kind.startswith("packed ")}
_ELEMENT_BYTES = {"packed float": 4, "packed double": 8}
_TAGS = {
    message: {number << 3 | _WIRE_TYPES.get(field.kind, _BYTES): (number, field) for number, field in fields.items()}
    for message, fields in FIELDS.items()
}
"""Message → the only tags that its fields may have → number, field."""
_LARGEST_TAG = 2**32 - 1
_LARGEST_INT32, _SMALLEST_NEGATIVE = 2**31 - 1, 2**64 - 2**31
"""A negative int32 is written with 64 bits."""
_MOST_FIELDS = 2_000_000
"""Ten times as many as the largest graph has; a check takes seconds at worst."""

_INITIALIZER = ("Graph", 5)
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
"""Fields of a Tensor."""
_INLINE = {4, 5, 6, 7, 9, 10, 11}
"""Fields that hold weights."""
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2} | dict.fromkeys(
    (17, 18, 19, 20), 1
)
"""ONNX's number of a type → bytes of a value; 16 is bfloat16, 17 to 20 are kinds of float8."""
_EXTERNAL = 1
_ABOVE = {("Model", 7): "Graph", _INITIALIZER: "Tensor"}
"""Containers of initializers → the message in them."""
_IN_MEMORY = "*/_ORT_MEM_ADDR_/*"
"""The location that stands for a memory address; refused in files that are read."""
_ENTRIES = {"location", "offset", "length"}
_MOST_DIMS = 32
"""The product of millions of numbers would take hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """An initializer whose weights lie in another file."""

    name: str
    data_type: int
    """ONNX's number of the type: 1 is float32."""
    dims: tuple[int, ...]
    location: str
    """Name of the file, which is beside the graph."""
    offset: int
    length: int
    """Size in bytes, as the dimensions require."""


def external_data(data: _Bytes, where: str, files: dict[str, int] | None = None) -> tuple[ExternalTensor, ...]:
    """Return the initializers of an ONNX file whose weights are in another file.

    Args:
        data: the ONNX file's bytes.
        where: names it in errors.
        files: size in bytes of each file of weights that it may read, if known.

    Raises:
        BundleError: it is not an ONNX file, is not encoded as protobuf's libraries do, has a field that bundle graphs
            lack, or refers to weights that are not in a file beside it or lie beyond the end of one.
    """
    try:
        if not data:
            raise ValueError("it is empty")
        found = tuple(_Reader(data, files).message("Model", 0, len(data)))
        if len({tensor.name for tensor in found}) < len(found):
            raise ValueError("two initializers have the same name")
    except (ValueError, IndexError) as error:
        said = "it is cut off" if isinstance(error, IndexError) else error
        raise BundleError(
            f"{where} is not an ONNX file as bundles have it ({said}); export the bundle again, do not trust this one"
        ) from error
    return found


def with_addresses(data: _Bytes, tensors: tuple[ExternalTensor, ...], addresses: Mapping[str, int]) -> bytes:
    """Return the ONNX file with its weights referring to this process's memory.

    Args:
        data: the ONNX file's bytes.
        tensors: the result of `external_data` for it.
        addresses: where each file of weights begins in memory, by its name.
    """
    reader, left = _Reader(data, None), iter(tensors)

    def rewritten(message: str, start: int, end: int) -> bytes:
        parts, outside = [], False
        for number, _, first, last in reader.fields(message, start, end):
            if (message, number) in _ABOVE:
                parts.append(_field(number, rewritten(_ABOVE[message, number], first, last)))
            elif (message, number) == ("Tensor", _EXTERNAL_DATA):
                outside = True
            else:
                parts.append(bytes(data[start:last]))
            start = last
        if outside:
            tensor = next(left)
            place = str(addresses[tensor.location] + tensor.offset)
            for key, value in (("location", _IN_MEMORY), ("offset", place), ("length", str(tensor.length))):
                parts.append(_field(_EXTERNAL_DATA, _field(1, key.encode()) + _field(2, value.encode())))
        return b"".join(parts)

    return rewritten("Model", 0, len(data))


def _odd(message: str, tag: int) -> str:
    """Describe a tag that no field of a message has."""
    number = tag >> 3
    if tag <= _LARGEST_TAG and number in FIELDS[message]:
        return f"field {number} of a {message} is of wire type {tag & 7}"
    return f"field {number} of a {message} does not occur in a bundle's graphs"


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


class _Reader:
    """Iterates over the fields of a file."""

    def __init__(self, data: _Bytes, files: dict[str, int] | None) -> None:
        self._data = data
        self._files = files
        self._left = _MOST_FIELDS

    def message(self, message: str, start: int, end: int, *, initializer: bool = False) -> Iterator[ExternalTensor]:
        """Check a message and its nested messages; yield the initializers whose weights are outside."""
        if message == "Tensor":
            yield from self._tensor(start, end, initializer=initializer)
            return
        for number, field, first, last in self.fields(message, start, end):
            if field.kind in FIELDS:
                yield from self.message(field.kind, first, last, initializer=(message, number) == _INITIALIZER)

    def _tensor(self, start: int, end: int, *, initializer: bool) -> Iterator[ExternalTensor]:
        name, data_type, location = "", 0, 0
        dims: list[int] = []
        entries: dict[str, str] = {}
        inline = False
        for number, field, first, last in self.fields("Tensor", start, end):
            inline = inline or number in _INLINE
            if number == _NAME:
                name = self._text(first, last)
            elif number == _DATA_TYPE:
                data_type, _ = self._varint(first)
            elif number == _DATA_LOCATION:
                location, _ = self._varint(first)
            elif number == _DIMS:
                dims.append(self._varint(first)[0])
            elif number == _EXTERNAL_DATA:
                key, value = self._entry(first, last)
                if key in entries or key not in _ENTRIES:
                    raise ValueError(f"a tensor has an unknown or duplicate entry {key!r} of external data")
                entries[key] = value
            elif field.kind in FIELDS:
                yield from self.message(field.kind, first, last)
        if not location and not entries:
            return
        if location != _EXTERNAL or "location" not in entries:
            raise ValueError("a tensor names no file of weights, or names one and does not read it")
        if not initializer or inline:
            what = "inside as well" if initializer else "though it is no initializer"
            raise ValueError(f"a tensor has its weights in {entries['location']!r}, {what}")
        if len(dims) > _MOST_DIMS:
            raise ValueError(f"a tensor has {len(dims)} dimensions")
        length = math.prod(dims) * _ITEM_BYTES.get(data_type, 0)
        offset = self._number(entries.get("offset", "0"))
        if not length or length != self._number(entries.get("length", str(length))):
            raise ValueError(f"{name!r} has other weights than its {len(dims)} dimensions and type {data_type} ask for")
        self._check_place(entries["location"], offset + length)
        yield ExternalTensor(
            name=name,
            data_type=data_type,
            dims=tuple(dims),
            location=entries["location"],
            offset=offset,
            length=length,
        )

    def _check_place(self, name: str, end: int) -> None:
        """Check that weights are in a file beside the graph, and not beyond its `end`."""
        if not name or "/" in name or "\\" in name or name in (".", "..") or not name.isprintable():
            raise ValueError(f"it reads {name!r}, which is not a file beside it")
        if self._files is not None:
            if name not in self._files:
                raise ValueError(f"it reads {name!r}, which the bundle does not list")
            if end > self._files[name]:
                raise ValueError(f"it reads beyond the end of {name!r}")

    @staticmethod
    def _number(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 15 or str(int(text)) != text:
            raise ValueError(f"{text!r} is not an offset or length in a file of weights")
        return int(text)

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        texts = {
            number: self._text(first, last) for number, _, first, last in self.fields("StringStringEntry", start, end)
        }
        return texts.get(1, ""), texts.get(2, "")

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode("utf-8")

    def fields(self, message: str, start: int, end: int) -> Iterator[tuple[int, Field, int, int]]:
        """Yield number, field, and start and end of the content for every field of one message."""
        data, known = self._data, _TAGS[message]
        seen: set[int] = set()
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has far too many fields")
            tag = data[start]
            if tag < 0x80:  # the usual case: this loop is a large part of opening a bundle
                start += 1
            else:
                tag, start = self._varint(start)
            if tag not in known:
                raise ValueError(_odd(message, tag))
            number, field = known[tag]
            if not field.repeated:
                if number in seen:
                    raise ValueError(f"field {number} of a {message} occurs twice")
                seen.add(number)
            first, wire_type = start, tag & 7
            if wire_type == _BYTES:
                size = data[start]
                if size < 0x80:
                    first = start + 1
                else:
                    size, first = self._varint(start)
                start = first + size
                if field.kind in _PACKED:
                    self._check_packed(field, first, min(start, end))
            elif wire_type == _VARINT:
                value, start = self._varint(start)
                if field.kind == "int32" and _LARGEST_INT32 < value < _SMALLEST_NEGATIVE:
                    raise ValueError(f"field {number} of a {message} has too many bits")
            else:
                start += 4
            if start > end:
                raise ValueError(f"field {number} of a {message} is cut off")
            yield number, field, first, start

    def _check_packed(self, field: Field, start: int, end: int) -> None:
        """Check that a packed run of numbers ends where a number ends."""
        size = _ELEMENT_BYTES.get(field.kind)
        if (end - start) % size if size else end > start and self._data[end - 1] >= 0x80:
            raise ValueError("numbers are cut off")

    def _varint(self, start: int) -> tuple[int, int]:
        """Read a number of at most 64 bits in the fewest possible bytes; return it, and where it ends."""
        data, value = self._data, 0
        for shift in range(0, 70, 7):
            byte = data[start]
            start += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (not byte and shift) or value >> 64:
                    break
                return value, start
        raise ValueError("a number is written in more bytes than necessary")
