"""A flag for each field of a recipe, so that any of them can be changed on the command line."""

from __future__ import annotations

import ast
import inspect
from dataclasses import field, fields, make_dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, get_type_hints

import tyro.conf

from ovavel.training.fit.recipes import Recipe

__all__ = ["RecipeFlags", "apply_flags"]


def _docs(kind: type) -> dict[str, str]:
    """Name of each field → the docstring under it."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        name.target.id: inspect.cleandoc(text.value.value).replace("\n", " ")
        for name, text in pairwise(body.body)
        if isinstance(name, ast.AnnAssign) and isinstance(name.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _flags() -> type:
    """Make a dataclass of all fields of `Recipe` but its name, each None unless it is given."""
    docs, hints = _docs(Recipe), get_type_hints(Recipe, include_extras=True)
    flags = []
    for each in fields(Recipe):
        if each.name != "name":
            text = f"{docs[each.name]} (paper: {each.default})"
            help_text = tyro.conf.arg(help=text, help_behavior_hint="")
            flags.append((each.name, Annotated[hints[each.name] | None, help_text], field(default=None)))
    return make_dataclass("RecipeFlags", flags, frozen=True, kw_only=True)


RecipeFlags = Annotated[Any, tyro.conf.arg(constructor=_flags())]
"""Type of a command's field that takes the flags; its default is None."""


def apply_flags(recipe: Recipe, flags: Any) -> Recipe:
    """Return `recipe` with the given fields replaced (None: no field is given).

    Raises:
        UsageError: a value is invalid.
    """
    names = [each.name for each in fields(flags)] if flags else []
    return replace(recipe, **{name: value for name in names if (value := getattr(flags, name)) is not None})
