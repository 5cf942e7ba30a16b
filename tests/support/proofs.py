"""Parameters of which CI runs a few and `make proof` all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

__all__ = ["proof_unless"]

T = TypeVar("T")


def proof_unless(in_ci: Callable[[T], bool], values: Iterable[T]) -> list[object]:
    """Return `values` for `parametrize`, those marked `proof` that are not for CI."""
    return [value if in_ci(value) else pytest.param(value, marks=pytest.mark.proof) for value in values]
