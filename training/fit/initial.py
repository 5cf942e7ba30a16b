"""What a training run begins with: the head of its recipe, and the recipe of the trunk that it stands on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from ovavel.runtime.errors import UsageError
from ovavel.training.fit.recipes import SETTINGS, Recipe, find_recipe
from ovavel.training.heads.base import Head, make_head
from ovavel.training.heads.registry import check_settings

__all__ = ["head_settings", "initial_head", "trunk_recipe"]


_PLAIN = Recipe()


def initial_head(recipe: Recipe, dim: int, trunk: Head | None = None, **changes: object) -> Head:
    """Create the head of `recipe` with its initial weights, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        settings = head_settings(recipe, **{name: value for name, value in changes.items() if value is not None})
        settings |= {"trunk": copy.deepcopy(trunk)} if trunk else {}
        return make_head(recipe.head, dim=dim, **settings)


def head_settings(recipe: Recipe, **changes: object) -> dict[str, object]:
    """Return the settings of the head of `recipe`, without its size."""
    settings = {name: getattr(recipe, name) for name in (*SETTINGS, "trunk")} | changes
    return check_settings(recipe.head, settings, {name: getattr(_PLAIN, name) for name in SETTINGS})


def trunk_recipe(recipe: Recipe) -> Recipe | None:
    """Return the recipe of the trunk of `recipe`; None where the trunk is a file, and where there is none."""
    if not recipe.trunk or Path(recipe.trunk).suffix in (".safetensors", ".pth"):
        return None
    first = find_recipe(recipe.trunk)
    if first.trunk:
        raise UsageError(
            f"the trunk of {recipe.name!r} must be a recipe without a trunk of its own, not {first.name!r}"
        )
    return replace(first, seed=recipe.seed, train_ratio=recipe.train_ratio)
