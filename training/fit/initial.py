"""What a training run begins with: data that its recipe can use, its head, and the recipe of the trunk below it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from ovavel.runtime.errors import UsageError
from ovavel.training.fit.data import Data
from ovavel.training.fit.recipes import SETTINGS, Recipe, find_recipe
from ovavel.training.heads.base import Head, make_head
from ovavel.training.heads.registry import check_settings

__all__ = ["check_data", "head_settings", "initial_head", "needs_passes", "trunk_recipe"]


_PLAIN = Recipe()


def check_data(recipe: Recipe, data: Data) -> None:
    """Refuse a recipe that needs something that the data lack.

    Raises:
        UsageError: it does.
    """
    if recipe.select == "test" and data.test is None:
        raise UsageError("cannot select the epoch on the test split, which was not read")
    if recipe.select == "val-seen" and not data.val.seen.any():
        raise UsageError("cannot select the epoch on seen classes: the validation split has none")
    if needs_passes(recipe) and data.train.passes is None:
        raise UsageError(
            f"the recipe {recipe.name!r} trains on sound with stochastic depth, and the feature cache has no such "
            "passes: make one that does, with `ovavel train features --passes 5 --drop-path 0.1`"
        )


def needs_passes(recipe: Recipe) -> bool:
    """Return whether `recipe`, or that of its trunk, trains on passes with stochastic depth."""
    return any(each.stochastic_depth for each in (recipe, trunk_recipe(recipe)) if each)


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
