"""An ONNX file as a tree of fields: one of them can be written in another way, and all lengths around it are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ovavel.runtime.bundle.onnx_fields import FIELDS


def varint(value: int, size: int = 1) -> bytes:
    """`value` in at least `size` bytes."""
    digits = []
    while value or len(digits) < size:
        digits.append(value & 0x7F)
        value >>= 7
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


def parse(data: bytes, message: str) -> list[list[Any]]:
    """[number, wire type, content, message] of each field; the content is a list where it is a message."""
    fields, place = [], 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        tag = number()
        field = FIELDS[message][tag >> 3]
        content: Any
        if tag & 7 == 0:
            content = number()
        elif tag & 7 == 5:
            content, place = data[place : place + 4], place + 4
        else:
            size = number()
            content, place = data[place : place + size], place + size
            if field.kind in FIELDS:
                content = parse(content, field.kind)
        fields.append([tag >> 3, tag & 7, content, message])
    return fields


def write(fields: list[list[Any]], at: Iterator[int], chosen: int, change: Callable[..., bytes]) -> bytes:
    """The bytes of the fields; the one that is `chosen`, in the order of `at`, is written by `change`."""
    written = []
    for number, kind, content, message in fields:
        here = next(at)
        if isinstance(content, list):
            content = write(content, at, chosen, change)
        if here == chosen:
            written.append(change(number, kind, content, message))
        else:
            written.append(one_field(number << 3 | kind, content))
    return b"".join(written)


def one_field(tag: int, content: Any, *, tag_bytes: int = 1, number_bytes: int = 1) -> bytes:
    """A field with `tag` and `content`, tag and number in more bytes than they take where asked."""
    start = varint(tag, tag_bytes)
    if isinstance(content, int):
        return start + varint(content, number_bytes)
    return start + (b"" if tag & 7 == 5 else varint(len(content), number_bytes)) + content


def count(fields: list[list[Any]]) -> int:
    """How many fields there are, in all messages."""
    return sum(1 + (count(field[2]) if isinstance(field[2], list) else 0) for field in fields)
