"""The rows of a table: those of a suite, and recipes by name. Nothing here imports PyTorch.

A row is trained by a recipe, or comes from something else: see `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

from msgspec import Struct

from ovavel.runtime.errors import UsageError
from ovavel.training.fit.recipes import RECIPES, SETTINGS, Recipe
from ovavel.training.heads.registry import accepted_settings

__all__ = [
    "AGREEMENT",
    "BASE",
    "CHANCE",
    "CONTROLS",
    "DECIDED",
    "FUSED",
    "NOTHING",
    "RULE_BASES",
    "SUITES",
    "WITHOUT",
    "Row",
    "SuiteName",
    "published_beside",
    "suite_rows",
    "table_rows",
]

SuiteName = Literal["paper", "all"]

Source = Literal["recipe", "untrained", "clip-clap", "llm", "rule", "rule on head"]
"""What makes a row: a recipe; the embeddings as they are; those of CLIP & CLAP; a language model; a decision rule on
the embeddings, or on the head of `BASE`."""

BASE = "paper"
"""The row that others are compared with: the paper's head."""

CONTROLS = "Controls"
SYSTEMS = "Table 2: systems"
ABLATIONS = "Tables 3 to 6: ablations"
RULES, HEAD_RULES = "Decision rules on the embeddings", f"Decision rules on the head of {BASE}"
LATER = "Later systems"
OWN = "Our own recipes"
UNTRAINED, ASKED = "Without training", "Recipes"

_PUBLISHED: Mapping[str, str] = {
    "paper": "fine-tuned",
    "published-script": "fine-tuned",
    "paper-drop-path": "fine-tuned",
    "linear": "Linear in place of the block",
    "two-blocks": "two blocks",
    "cross-modal": "cross-modal only",
    "ave": "AVE",
    "psp": "PSP",
    "cmra": "CMRA",
    "mm-pyramid": "MM-Pyramid",
    "prob-avg": "Prob-avg",
    "feature-avg": "Fea-avg",
    "without-other": "fine-tuned without other",
    "ratio-75": "75 % of the training data",
    "ratio-50": "50 % of the training data",
    "ratio-25": "25 % of the training data",
    "complex": "complex fusion",
}
"""Recipe → published row."""

_PUBLISHED_RULES: Mapping[str, str] = {"av2a": "AV²A", "cuerator": "CueRator, one θ"}

RULE_BASES = ("agreement", "published")
"""Rules that the others are compared with."""
_MORE_RULES = (
    *("positive", "agreement+debiased", "positive+debiased", "positive+offset", "temperatures"),
    *("av2a", "cuerator", "clip-prior"),
)

_OTHER_TEXTS: Mapping[Literal["max", "logsumexp", "prompts"], str] = {
    "max": "several background texts (max)",
    "logsumexp": "several background texts (logsumexp)",
    "prompts": "names in prompts",
}

_LENGTH = ("epochs", "halve_at", "learning_rate")
"""How long and how fast a recipe trains, which is never what it is about."""
_STRUCTURE = ("head", "trunk", "train_ratio", "shuffle_labels", "background", "score", "stochastic_depth")
"""What the rows of a suite differ in."""


class Row(Struct, frozen=True, kw_only=True):
    """One row of a table, before it is measured."""

    name: str
    group: str
    source: Source
    recipe: Recipe | None = None
    rule: str | None = None
    """Name of a decision rule; see `named_rule`."""
    fitted: bool = False
    """Fit the rule even where it has published values."""
    texts: Literal["", "max", "logsumexp", "prompts"] = ""
    """Other texts than the names alone: several of the background, whose largest similarity or log-sum-exp counts; or
    the names in prompts."""
    published: str | None = None
    """Name of the corresponding published row, unless a recipe was changed."""
    label: str = ""
    """What a reader has to know of it."""
    left_out: tuple[str, ...] = ()
    """Flags that do not apply to it."""

    @property
    def rule_key(self) -> str:
        """Rule, and what is special about it, as a file may be called."""
        return "-".join(part for part in (self.rule, "fitted" if self.fitted else "", self.texts) if part)


def published_beside(recipe: Recipe) -> str | None:
    """Return the published row of a named recipe; one with modified fields has none."""
    known = RECIPES.get(recipe.name)
    return _PUBLISHED.get(recipe.name) if known and recipe == replace(known, seed=recipe.seed) else None


def recipe_rows(recipes: Sequence[Recipe], group: str = ASKED) -> list[Row]:
    """Return a row for each recipe."""
    return [Row(name=each.name, group=group, source="recipe", recipe=each) for each in recipes]


def untrained_rows() -> list[Row]:
    """Return the rows that stand in a table of recipes by name, so that there is something to compare with."""
    return [_untrained(each, UNTRAINED) for each in (CHANCE, NOTHING, AGREEMENT, WITHOUT, FUSED)]


def suite_rows(suite: SuiteName, flags: Any = None) -> list[Row]:
    """Return the rows of a suite, with the fields of a recipe that `flags` changes.

    A row takes a flag where its head has that setting and where it is not what the row is about.

    Raises:
        UsageError: a flag would make all rows the same.
    """
    given = (
        {each.name: value for each in fields(flags) if (value := getattr(flags, each.name)) is not None}
        if flags
        else {}
    )
    if odd := next((name for name in _STRUCTURE if name in given), None):
        raise UsageError(
            f"--{odd.replace('_', '-')} is what the rows of a suite differ in: leave it out, or name --recipes alone"
        )
    return [_changed(row, given) for row in SUITES[suite]]


def table_rows(suite: SuiteName | None, recipes: Sequence[Recipe], flags: Any = None) -> list[Row]:
    """Return the rows of a suite with recipes below them; without a suite, what needs no training and the recipes.

    A recipe that the suite has already is not repeated.

    Raises:
        UsageError: see `suite_rows`.
    """
    rows = suite_rows(suite, flags) if suite else untrained_rows()
    known = {row.name for row in rows}
    return [*rows, *recipe_rows([each for each in recipes if each.name not in known])]


def _changed(row: Row, given: Mapping[str, Any]) -> Row:
    recipe = row.recipe
    if recipe is None or not given:
        return row
    about, known = set(recipe.changes()) - set(_LENGTH), accepted_settings(recipe.head)
    takes = {name: value for name, value in given.items() if name not in about}
    takes = {name: value for name, value in takes.items() if name not in SETTINGS or name in known}
    left_out = tuple(sorted(given.keys() - takes.keys()))
    return Row(
        name=row.name,
        group=row.group,
        source="recipe",
        recipe=replace(recipe, **takes),
        label=row.label,
        left_out=left_out,
    )


def _untrained(name: str, group: str) -> Row:
    return Row(name=name, group=group, source="untrained")


def _rules(source: Source) -> list[Row]:
    """Return a row for each rule; other texts are tried with one that needs no fit."""
    alone = source == "rule"
    on = "" if alone else f" on {BASE}"
    group = RULES if alone else HEAD_RULES
    rows = [
        Row(
            name=f"rule {rule}{on}",
            group=group,
            source=source,
            rule=rule,
            published=_PUBLISHED_RULES.get(rule) if alone else None,
            label="benchmark only" if rule == "clip-prior" else "",
        )
        for rule in (*RULE_BASES, *_MORE_RULES)
    ]
    rows.append(Row(name=f"rule av2a, fitted{on}", group=group, source=source, rule="av2a", fitted=True))
    rule = "agreement" if alone else "positive"
    rows += [
        Row(name=f"rule {rule}, {words}{on}", group=group, source=source, rule=rule, texts=texts)
        for texts, words in _OTHER_TEXTS.items()
    ]
    return rows


def _trained(group: str, *names: str) -> list[Row]:
    return recipe_rows([RECIPES[name] for name in names], group)


CHANCE, NOTHING = "chance: random classes", "background everywhere"
AGREEMENT, WITHOUT = "agreement, training-free", "agreement without background"
FUSED = "fused, training-free"
DECIDED = (AGREEMENT, WITHOUT, FUSED)
"""Rows that decide on the embeddings as they are."""

_CONTROLS = [_untrained(name, CONTROLS) for name in (CHANCE, NOTHING)]
_SYSTEMS = [
    Row(name="video language model", group=SYSTEMS, source="llm", published="Video-LLaMA2"),
    Row(name="CLIP & CLAP, training-free", group=SYSTEMS, source="clip-clap", published="CLIP & CLAP"),
    _untrained(AGREEMENT, SYSTEMS),
    *_trained(SYSTEMS, "cmra", "ave", "psp", "mm-pyramid", BASE),
]
_ABLATIONS = [
    *_trained(ABLATIONS, "without-other", "prob-avg", "feature-avg", "linear", "two-blocks", "cross-modal"),
    *_trained(ABLATIONS, "ratio-75", "ratio-50", "ratio-25"),
    _untrained(WITHOUT, ABLATIONS),
    _untrained(FUSED, ABLATIONS),
]

SUITES: Mapping[SuiteName, Sequence[Row]] = {
    "paper": [*_CONTROLS, *_SYSTEMS, *_ABLATIONS],
    "all": [
        *_CONTROLS,
        *_trained(CONTROLS, "shuffled-labels"),
        *_SYSTEMS,
        *_trained(SYSTEMS, "paper-drop-path"),
        *_ABLATIONS,
        *_trained(LATER, "complex"),
        *_rules("rule"),
        *_rules("rule on head"),
        *_trained(OWN, "sharp-mixed", "gated-smooth", "learned-gate"),
    ],
}
"""Rows by suite, in their order."""
