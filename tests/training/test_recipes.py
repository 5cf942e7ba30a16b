"""Recipes: the paper's figures, sensible fields, and a flag for each."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import tyro

from ovavel.runtime.errors import UsageError
from ovavel.training.commands.head import Head
from ovavel.training.commands.recipe_flags import apply_flags
from ovavel.training.recipes import RECIPES, Recipe, find_recipe

NEEDED = ["--data", "d", "--features", "f", "--out", "o"]
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff)


def parse(*arguments: str) -> Recipe:
    head = tyro.cli(Head, args=[*NEEDED, *arguments], config=CONFIG)
    return apply_flags(find_recipe(head.recipe), head.changes)


def test_the_default_is_the_paper() -> None:
    assert parse() == Recipe() == RECIPES["paper"]
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.batch_clips, recipe.epochs, recipe.clip_norm) == (5e-5, 32, 5, 0.8)
    assert (recipe.halve_at, recipe.seed, recipe.dropout, recipe.audio_scale) == ((10, 20, 30), 123, 0.1, 20.0)
    assert recipe.changes() == {}


def test_every_ablation_is_named() -> None:
    for name, changes in {
        "linear": {"head": "linear"},
        "two-blocks": {"blocks": 2},
        "cross-modal": {"head": "cross-modal"},
        "prob-avg": {"score": "prob-avg"},
        "feature-avg": {"score": "feature-avg"},
        "ratio-75": {"train_ratio": 0.75},
        "ratio-50": {"train_ratio": 0.5},
        "ratio-25": {"train_ratio": 0.25},
    }.items():
        assert RECIPES[name].changes() == changes
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert len({repr(replace(recipe, name="")) for recipe in RECIPES.values()}) == len(RECIPES)


OTHER = {"head": "linear", "score": "prob-avg", "precision": "bf16", "select": "val-seen", "blend": (0.5, 1.0)} | {
    "learn_gate": True, "shuffle_labels": True, "halve_at": (3, 4), "gate": 0.25, "patience": 2, "train_ratio": 0.5
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe) if field.name != "name"])
def test_every_field_has_a_flag(name: str) -> None:
    default = getattr(Recipe(), name)
    value = OTHER.get(name, default * 2 if default else 0.5)
    words = [str(word) for word in (value if isinstance(value, tuple) else (value,))]
    more = ("--gate", "0.5") if name == "learn_gate" else ()
    recipe = parse(f"--{name.replace('_', '-')}", *words, *more)
    assert getattr(recipe, name) == value != default
    base = replace(Recipe(), gate=0.5) if more else Recipe()
    assert recipe == replace(base, **{name: value})


def test_a_flag_can_undo_what_a_recipe_changed() -> None:
    assert parse("--recipe", "two-blocks", "--blocks", "1") == replace(Recipe(), name="two-blocks")


def test_help_tells_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    out = capsys.readouterr().out
    assert "(paper: 5e-05)" in out
    assert all(f"--{field.name.replace('_', '-')}" in out for field in fields(Recipe) if field.name != "name")
    assert all(name in (Head.__doc__ or "") for name in RECIPES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_clips", 0), ("blocks", 0), ("learning_rate", 0.0), ("dropout", 1.0), ("gate", 1.5),
        ("blend", (0.5, -0.1)), ("ema", 1.0), ("train_ratio", 0.0), ("train_ratio", 1.1), ("temperature", 0.0),
        ("patience", 0), ("mixup", -1.0), ("label_smoothing", -0.1), ("seed", -1), ("learning_rate", float("nan")),
    ],
)  # fmt: skip
def test_senseless_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(Recipe(), **{field: value})


def test_senseless_pairs_and_names_are_refused() -> None:
    with pytest.raises(UsageError, match="start somewhere"):
        Recipe(learn_gate=True)
    with pytest.raises(UsageError, match="without a gate"):
        Recipe(gate=0.5, blend=(0.5,))
    with pytest.raises(UsageError, match="there are: paper, linear"):
        find_recipe("papper")
