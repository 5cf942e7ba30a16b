"""Recipes: the paper's settings, valid fields, and a flag for each."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tyro

from ovavel.runtime.errors import UsageError
from ovavel.training.commands.head import Head
from ovavel.training.commands.recipe_flags import apply_flags
from ovavel.training.fit.recipes import RECIPES, Recipe, find_recipe

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
        "without-other": {"background": False},
        "paper-drop-path": {"stochastic_depth": True},
        "ratio-75": {"train_ratio": 0.75, "epochs": 10},
        "ratio-50": {"train_ratio": 0.5, "epochs": 10},
        "ratio-25": {"train_ratio": 0.25, "epochs": 10},
        "ave": {"head": "ave"},
        "psp": {"head": "psp"},
        "cmra": {"head": "cmra"},
        "mm-pyramid": {"head": "mm-pyramid", "dropout": 0.2},
        "complex": {"head": "complex", "trunk": "paper", "epochs": 10},
    }.items():
        assert RECIPES[name].changes() == changes
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert len({repr(replace(recipe, name="")) for recipe in RECIPES.values()}) == len(RECIPES)


OTHER = {"head": "linear", "score": "prob-avg", "precision": "bf16", "select": "val-seen", "blend": (0.5, 1.0)} | {
    "learn_gate": True, "shuffle_labels": True, "background": False, "halve_at": (3, 4), "gate": 0.25, "patience": 2,
    "train_ratio": 0.5, "hidden": 64, "ffn": 32, "trunk": "paper", "train_trunk": True, "stochastic_depth": True,
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


def test_help_shows_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    out = capsys.readouterr().out
    assert "(paper: 5e-05)" in out
    assert all(f"--{field.name.replace('_', '-')}" in out for field in fields(Recipe) if field.name != "name")
    assert all(name in (Head.__doc__ or "") for name in RECIPES)
    assert "--no-tensorboard" in out
    assert "(default: True)" not in out


def test_no_switch_is_on_by_default() -> None:
    """A switch that is on by default shows as `--no-… (default: True)`, which is ambiguous."""
    for command in entry_points(group="ovavel.commands"):
        for each in fields(command.load()):
            assert each.default is not True, f"{command.name} {each.name}"


def test_recipes_include_the_best_epochs_of_the_paper() -> None:
    for name, best in {"paper": 1, "ratio-75": 3, "ratio-50": 5, "ratio-25": 6}.items():
        assert RECIPES[name].epochs >= best


def test_a_recipe_from_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "sharp-mixed"\nepochs = 7\nhalve_at = [2, 4]\nlearning_rate = 1\nbackground = false\n')
    mine = replace(RECIPES["sharp-mixed"], name="mine", epochs=7, halve_at=(2, 4), learning_rate=1.0, background=False)
    assert find_recipe(str(file)) == parse("--recipe", str(file)) == mine
    assert parse("--recipe", str(file), "--epochs", "3") == replace(mine, epochs=3)
    file.write_text('name = "other-name"')
    assert find_recipe(str(file)) == replace(Recipe(), name="other-name")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = ", "cannot be read"),
        ("epoch = 3", "no field 'epoch'"),
        ("epochs = 3.5", "epochs"),
        ("epochs = 0", "epochs"),
        ("learning_rate = nan", "learning_rate"),
        ('head = "linea"', "head of the recipe 'mine' must be one of ave, cmra, complex, .*, not 'linea'"),
        ("levels = 5", "levels"),
        ("epochs = true", "epochs"),
        ("[epochs]", "epochs"),
        ('base = "nothing"', "base must be one of paper"),
        ("base = 3", "base must be"),
        ('name = "paper"', "needs a new name"),
        ('name = "../x"', "needs a new name"),
        ('name = ""', "needs a new name"),
        ("learn_gate = true", "starting value"),
    ],
)
def test_an_invalid_recipe_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        find_recipe(str(file))
    assert "mine.toml" in str(error.value)


def test_a_file_that_is_not_a_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "paper.toml").write_text("")
    (tmp_path / "folder.toml").mkdir()
    for name in ("gone", "bytes", "paper", "folder"):
        with pytest.raises(UsageError, match=f"{name}.toml"):
            find_recipe(str(tmp_path / f"{name}.toml"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_clips", 0), ("blocks", 0), ("learning_rate", 0.0), ("dropout", 1.0), ("gate", 1.5),
        ("blend", (0.5, -0.1)), ("ema", 1.0), ("train_ratio", 0.0), ("train_ratio", 1.1), ("temperature", 0.0),
        ("patience", 0), ("mixup", -1.0), ("label_smoothing", -0.1), ("seed", -1), ("learning_rate", float("nan")),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(Recipe(), **{field: value})


def test_invalid_combinations_and_names_are_refused() -> None:
    with pytest.raises(UsageError, match="starting value"):
        Recipe(learn_gate=True)
    with pytest.raises(UsageError, match="without a gate"):
        Recipe(gate=0.5, blend=(0.5,))
    with pytest.raises(UsageError, match="choose one of paper, linear"):
        find_recipe("papper")
