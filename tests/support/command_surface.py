"""What the command line offers, read from the commands themselves: names, flags, types and defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

POSITIONAL = tyro.conf.Positional[Any].__metadata__[0]
TYPES = {str: "STR", int: "INT", float: "FLOAT", Path: "PATH"}


def kinds() -> dict[str, type]:
    """Command, as it is typed → its class; commands of other packages are left out."""
    found = entry_points(group="ovavel.commands")
    return {each.name.replace(".", " "): each.load() for each in found if each.value.startswith("ovavel.")}


def flags(kind: type) -> Iterator[tuple[str, str]]:
    """Flag or positional, and what it takes, of each field of `kind` and of the dataclasses inside it."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        notes = getattr(hint, "__metadata__", ())
        made = next((note.constructor_factory() for note in notes if getattr(note, "constructor_factory", None)), None)
        if inner := made or (hint if dataclasses.is_dataclass(hint) else None):
            yield from flags(inner)
            continue
        name = field.name.upper() if POSITIONAL in notes else f"--{field.name.rstrip('_').replace('_', '-')}"
        yield name, f"{_type(hint)} {_default(field)}".strip()


def surface() -> str:
    """One block for each command, in the order of the alphabet, and one line for each flag, in that of the help."""
    blocks = []
    for command, kind in sorted(kinds().items()):
        lines = [f"  {name} {takes}".rstrip() for name, takes in flags(kind)]
        blocks.append("\n".join([f"ovavel {command}", *lines]))
    return "\n\n".join(blocks) + "\n"


def _type(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _type(hint.__origin__)
    if get_origin(hint) in (Union, UnionType):
        return "|".join(_type(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is tuple:
        items = [each for each in get_args(hint) if each is not Ellipsis]
        return f"{' '.join(map(_type, items))}..."
    if get_origin(hint) is Literal:
        return f"{{{','.join(map(str, get_args(hint)))}}}"
    return "" if hint is bool else TYPES[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        assert field.default_factory is dataclasses.MISSING, f"{field.name}: a plain default can be shown"
        return "(required)"
    if field.default in (None, False, ()):
        return ""
    return f"= {' '.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default}"
