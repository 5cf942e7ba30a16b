"""Kinds of heads by name, found through the entry-point group `ovavel.heads`.

An entry point names a class, or a function, that makes a `Head` from keyword arguments: `dim`, and those fields of a
recipe that it has a parameter for. Nothing here needs PyTorch, so that recipes can be checked without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ovavel.runtime.errors import UsageError
from ovavel.runtime.plugins import plugins

__all__ = ["accepted_settings", "check_settings", "find_head", "head_names"]

GROUP = "ovavel.heads"

HeadMaker: TypeAlias = Callable[..., Any]
"""Makes a `Head` (`base.py`)."""


def head_names() -> list[str]:
    """Names of the installed kinds of heads."""
    return sorted({entry.name for entry in plugins(GROUP)})


def find_head(name: str) -> HeadMaker:
    """Return what makes heads of the kind `name`.

    Raises:
        UsageError: there is no such kind, two packages provide it, or its package cannot be imported.
    """
    found = [entry for entry in plugins(GROUP) if entry.name == name]
    places = sorted({entry.value for entry in found})
    if not places:
        raise UsageError(f"there is no head {name!r}; there are: {', '.join(head_names())}")
    if len(places) > 1:
        raise UsageError(f"the head {name!r} is provided more than once: {', '.join(places)}; uninstall one of them")
    try:
        make: HeadMaker = found[0].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the head {name!r} cannot be loaded from {places[0]}: {error}") from error
    return make


def accepted_settings(name: str) -> frozenset[str]:
    """Names of the settings that heads of the kind `name` have.

    Raises:
        UsageError: there is no such head.
    """
    return frozenset(inspect.signature(find_head(name)).parameters)


def check_settings(name: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `settings` that the head `name` has a parameter for; None is left out.

    Args:
        name: the kind of head.
        settings: fields of a recipe.
        defaults: what the same fields are where nobody chose them; only these may be without a parameter.

    Raises:
        UsageError: there is no such head, it has no parameter for a setting that was chosen, or it needs one more.
    """
    parameters = inspect.signature(find_head(name)).parameters
    given = {setting: value for setting, value in settings.items() if value is not None}
    unknown = [each for each, value in given.items() if each not in parameters and value != defaults.get(each)]
    if unknown:
        raise UsageError(f"the head {name!r} has no setting {unknown[0]!r}: leave it out, or choose another head")
    required = (each for each, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    missing = [each for each in required if each not in given and each != "dim"]
    if missing:
        raise UsageError(f"the head {name!r} needs the setting {missing[0]!r}")
    return {each: value for each, value in given.items() if each in parameters}
