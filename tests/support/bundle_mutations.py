"""Ways to damage a file of a bundle, by chance or by intent. The same seed gives the same damage."""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from support.onnx_tree import count, one_field, parse, write

UNLISTED, OUTSIDE = "unlisted.data", "outside.data"
"""Files that no bundle lists; `OUTSIDE` lies above it, in the current folder."""
_PLACES = [UNLISTED, f"../{OUTSIDE}", OUTSIDE, f"/proc/self/cwd/{OUTSIDE}", "manifest.json", "audio.onnx.data", "", "."]
_NUMBERS = ["-1", "0", "1", "7", "1e999", "-0.0", "2147483648", "18446744073709551616", "9" * 5000, "NaN", "1E400"]
_TEXTS = [r'"\ud800"', r'"\u0000"', '"../x"', '"/etc/passwd"', '""', r'"\u001b[2J"', '"fp32"', '"' + "x" * 5000 + '"']
_NAMES = [b'"new":', rb'"\u001b]0;x\u0007":', rb'"a\nb\u202e":', b'"' + b"x" * 5000 + b'":']
_VALUES = [*_NUMBERS, *_TEXTS, "null", "true", "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "[[]]"]
_SIZES = ["-1", "0", "1", "65", "99999999999999999999", "4294967296", "1000000"]
_KINDS = ["|O", "<f8", ">f4", "<f2", "|V0", "<U9999999", "<i4", "|b1", "<c8", "M8[s]", "f4,f4"]

Change = Callable[[str, bytes, Random], bytes]


def mutated(name: str, data: bytes, random: Random) -> bytes:
    """Return what is in the file `name`, changed in one to three ways."""
    own = _FORMATS.get(name.rpartition(".")[2], [])
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice(own) if own and random.random() < 0.6 else random.choice(_ANY)
        try:
            data = change(name, data, random)
        except Exception:
            data = _insert(name, data, random)
    return data


def _flip(_: str, data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(_: str, data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))] if random.random() < 0.7 else data[random.randrange(1, len(data)) :]


def _insert(_: str, data: bytes, random: Random) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.choice((1, 2, 5, 300))) + data[place:]


def _copy_block(_: str, data: bytes, random: Random) -> bytes:
    size = random.randrange(1, min(4096, len(data)) + 1)
    start, to = random.randrange(len(data) - size + 1), random.randrange(len(data) + 1)
    return data[:to] + data[start : start + size] + data[to + size * (random.random() < 0.7) :]


def _fill(_: str, data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data))
    size = min(random.choice((1, 4, 8, 4096)), len(data) - start)
    return data[:start] + bytes([random.choice((0, 0x7F, 0x80, 0xFF))]) * size + data[start + size :]


_ANY: list[Change] = [_flip, _cut, _insert, _copy_block, _fill]


@cache
def _tree(data: bytes) -> tuple[list[list[Any]], int]:
    tree = parse(data, "Model")
    return tree, count(tree)


def _field(_: str, data: bytes, random: Random) -> bytes:
    """Write one field of an ONNX file in another way, or twice, or with another one beside it."""

    def change(number: int, kind: int, content: Any, _message: str) -> bytes:
        tag = number << 3 | kind
        other = random.choice((random.randrange(1, 30), random.randrange(2**29))) << 3 | random.randrange(8)
        return random.choice(
            (
                lambda: one_field(tag, content, tag_bytes=random.randrange(2, 11)),
                lambda: one_field(random.randrange(1, 2**32) << 32 | tag, content),
                lambda: one_field(tag, content, number_bytes=random.randrange(2, 11)),
                lambda: one_field(tag, content) * 2,
                lambda: one_field(other, random.randbytes(random.randrange(9))) + one_field(tag, content),
                lambda: one_field(other & ~7 | kind, content),
                lambda: one_field(number << 3 | other & 7, content),
                lambda: one_field(tag, random.choice((0, 1, 2**31, 2**63, 2**64 - 1)) if kind == 0 else b""),
                lambda: b"",
            )
        )()

    tree, fields = _tree(data)
    return write(tree, itertools.count(), random.randrange(fields), change)


def _weights(_: str, data: bytes, random: Random) -> bytes:
    """Let one initializer read its weights elsewhere, or have another type or shape."""
    tree, _ = _tree(data)
    tensors = [each[2] for top in tree if top[0] == 7 for each in top[2] if each[0] == 5]
    entries = [each for tensor in tensors for each in tensor if each[0] == 13]
    what = random.choice(("location", "location", "offset", "length", "dims", "type", "other"))
    if what in ("dims", "type"):
        number = 1 if what == "dims" else 2
        chosen = random.choice([each for tensor in tensors for each in tensor if each[0] == number])
        value: Any = random.choice((0, 1, 7, 16, 64, 96, 2**31 - 1, 2**63 - 1))
    else:
        named = [entry for entry in entries if what == "other" or entry[2][0][2] == what.encode()]
        chosen = random.choice(named)
        texts = _PLACES if what == "location" else [*_SIZES, "64", "4096"]
        key = random.choice((b"basepath", b"prepacked_0", b"location")) if what == "other" else what.encode()
        value = one_field(1 << 3 | 2, key) + one_field(2 << 3 | 2, random.choice(texts).encode())
    place = next(place for place, field in enumerate(_in_order(tree)) if field is chosen)
    return write(tree, itertools.count(), place, lambda number, kind, *_: one_field(number << 3 | kind, value))


def _in_order(tree: list[list[Any]]) -> list[list[Any]]:
    found = []
    for field in tree:
        found.append(field)
        found += _in_order(field[2]) if isinstance(field[2], list) else []
    return found


def _json_value(_: str, data: bytes, random: Random) -> bytes:
    """Put another value in the place of a text, number or word."""
    found = random.choice(list(re.finditer(rb'(?<=[:\[,\s])(?:"[^"]*"(?!\s*:)|-?\d[\d.eE+-]*|true|false|null)', data)))
    return data[: found.start()] + random.choice(_VALUES).encode() + data[found.end() :]


def _json_name(_: str, data: bytes, random: Random) -> bytes:
    """Name a field twice, in the same object or elsewhere, or give an object one more."""
    names = list(re.finditer(rb'"[^"]*"\s*:', data))
    named = random.choice(names)[0] if random.random() < 0.7 else random.choice(_NAMES)
    place = random.choice(names).start()
    return data[:place] + named + random.choice(_VALUES).encode() + b"," + data[place:]


def _json_order(_: str, data: bytes, _random: Random) -> bytes:
    """Write the same content in other bytes."""
    return json.dumps(json.loads(data), sort_keys=True).encode()


def _npy_header(_: str, data: bytes, random: Random) -> bytes:
    """Let the header of an array claim another shape, type or order, or be of another length or version."""
    what = random.choice(("shape", "kind", "order", "length", "version", "text"))
    if what == "shape":
        return re.sub(rb"(?<=[(\s])\d+(?=[,)])", random.choice(_SIZES).encode(), data[:128], count=1) + data[128:]
    if what == "kind":
        return re.sub(rb"(?<='descr': ')[^']*", random.choice(_KINDS).encode(), data[:128]) + data[128:]
    if what == "order":
        return data[:128].replace(b"False", b"True ") + data[128:]
    if what == "length":
        return data[:8] + random.randbytes(2) + data[10:]
    if what == "version":
        return data[:6] + bytes((random.randrange(5), random.randrange(3))) + data[8:]
    return data[:10] + random.choice((b"(" * 118, b"[" * 118, b"9" * 118, b"{'descr': 1" + b" " * 107)) + data[128:]


def _npz_member(name: str, data: bytes, random: Random) -> bytes:
    """Put another array in the place of one of an archive's, or leave it out, or have it twice, or a huge one."""
    file, out = io.BytesIO(data), io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as changed:
        members = archive.namelist()
        chosen = random.choice(members)
        for each in members:
            content = archive.read(each)
            what = random.choice(("header", "any", "none", "other", "huge")) if each == chosen else ""
            if what == "header":
                content = _npy_header(name, content, random)
            elif what == "any":
                content = random.choice(_ANY)(name, content, random)
            elif what == "other":
                content = archive.read(random.choice(members))
            elif what == "huge":
                content = content[:128] + bytes(2**26)
            if what != "none":
                changed.writestr(each, content)
    return out.getvalue()


def _npz_sizes(_: str, data: bytes, random: Random) -> bytes:
    """Let an archive claim other sizes of its members."""
    places = [found.start() for found in re.finditer(rb"PK\x01\x02", data)]
    place = random.choice(places) + random.choice((10, 16, 20, 24, 42))
    return data[:place] + random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x7f")) + data[place + 4 :]


_FORMATS: dict[str, list[Change]] = {
    "onnx": [_field, _weights],
    "json": [_json_value, _json_value, _json_name, _json_order],
    "jsonl": [_json_value, _json_value, _json_name],
    "npy": [_npy_header],
    "npz": [_npz_member, _npz_sizes],
}
