"""Bounds of numbers given by users.

They are declared at the field, `lag: Annotated[int, Meta(ge=0, le=9)]`, and checked before a command runs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Meta

from ovavel.runtime.errors import UsageError

__all__ = ["MOST_WORKERS", "Meta", "Seed", "bounds_of", "check_bounds"]

MOST_WORKERS = max(16, 2 * (os.cpu_count() or 1))
"""Most threads or processes. Far more than there are cores would wait for each other and never finish."""

LARGEST_SEED = 2**32 - 1

Seed = Annotated[int, Meta(ge=0, le=LARGEST_SEED)]


def check_bounds(options: Any, hints: dict[str, Any] | None = None) -> None:
    """Check the numbers in the dataclass `options`, and in dataclasses inside it, against the bounds of their fields.

    Raises:
        UsageError: one is out of bounds; names the flag and its range. NaN is always out of bounds.
    """
    hints = hints or get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_bounds(value)
            continue
        for bounds in bounds_of(hints[field.name]):
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not _inside(number, bounds):
                    flag = f"--{field.name.replace('_', '-')}"
                    raise UsageError(f"{flag} takes a number {_words(bounds)}, not {number}")


def bounds_of(hint: Any) -> Iterator[Meta]:
    """Yield the bounds in a type hint, including those of a tuple's items."""
    if get_origin(hint) is Annotated:
        yield from (each for each in hint.__metadata__ if isinstance(each, Meta))
    for inside in get_args(hint):
        yield from bounds_of(inside)


def _inside(number: float, bounds: Meta) -> bool:
    return (
        (bounds.ge is None or number >= bounds.ge)
        and (bounds.gt is None or number > bounds.gt)
        and (bounds.le is None or number <= bounds.le)
        and (bounds.lt is None or number < bounds.lt)
    )


def _words(bounds: Meta) -> str:
    low = f"above {_plain(bounds.gt)}" if bounds.gt is not None else f"from {_plain(bounds.ge)}"
    return f"{low} to below {_plain(bounds.lt)}" if bounds.lt is not None else f"{low} to {_plain(bounds.le)}"


def _plain(number: float | None) -> str:
    return "any" if number is None else f"{number:.0f}" if number == int(number) else f"{number}"
