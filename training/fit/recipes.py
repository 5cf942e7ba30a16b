"""How a temporal head is trained: the published recipe, its ablations, and recipes of our own, each a few fields away.

Nothing here needs PyTorch, so that command lines can be built from it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta, Seed
from ovavel.runtime.system.paths import check_path

__all__ = ["RECIPES", "Recipe", "find_recipe", "read_recipe"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a trained head depends on besides the data; the defaults are the paper's (docs/method.md, Training)."""

    name: str = "paper"
    """What tables call it."""
    head: Literal["temporal", "linear", "cross-modal"] = "temporal"
    """What a block is: attention among the segments of a modality; one matrix for each segment by itself; attention of
    a modality's segments to those of the other."""
    blocks: Annotated[int, Meta(ge=1, le=64)] = 1
    """Blocks per modality."""
    hidden: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Size of queries, keys and values."""
    ffn: Annotated[int, Meta(ge=1, le=65_536)] = 512
    """Inner size of the feed-forward part."""
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of the feed-forward part's inner values that are dropped in training."""
    audio_scale: Annotated[float, Meta(gt=0, le=1_000_000)] = 20.0
    """Norm with which audio enters the blocks; vision enters with norm 1."""
    gate: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of the blocks' output in the features, in [0, 1]; the rest is the embedding as it came, both of unit norm.
    Without it, features are the blocks' output alone."""
    learn_gate: bool = False
    """Learn that share, one per modality, from --gate on."""
    blend: tuple[Annotated[float, Meta(ge=0, le=1)], ...] = ()
    """Shares to try after training, with a head trained without a gate; validation picks one. It is weight averaging
    with the training-free head, done in the space of the features."""
    score: Literal["geometric", "prob-avg", "feature-avg"] = "geometric"
    """What is min-max scaled into scores: the root of the product of both similarities; their mean; the similarity of
    the mean of both features."""
    background: bool = True
    """Train and decide with the background among the names. Without it, segments of the background count nothing in
    the loss, and every segment is decided to be of some class."""
    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    """Times each clip is trained on."""
    batch_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 32
    """Clips of one step, over all processes together."""
    learning_rate: Annotated[float, Meta(gt=0, le=1_000_000)] = 5e-5
    """Of Adam."""
    halve_at: tuple[Annotated[int, Meta(ge=1, le=1_000_000)], ...] = (10, 20, 30)
    """Epochs after which the learning rate is halved."""
    clip_norm: Annotated[float, Meta(gt=0, le=1_000_000)] = 0.8
    """Largest norm of the gradient; larger ones are scaled down."""
    temperature: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    """Scores are divided by it to become the logits of the cross-entropy."""
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes."""
    mixup: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Mix each clip with another one of its batch by a share drawn from Beta(mixup, mixup); 0: not at all."""
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of weights that is validated and saved; 0: the weights themselves."""
    train_ratio: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the training clips to use."""
    shuffle_labels: bool = False
    """Give each training segment the label of another: a control that can learn nothing but how often each label is."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the blocks in training (autocast); similarities, scores and loss stay in fp32."""
    select: Literal["val", "val-seen", "test"] = "val"
    """What picks the epoch, by the mean of the three measures: all clips of the validation split, its seen classes
    alone, or the test split, as the published script did."""
    patience: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Stop after so many epochs without a better one; by default all epochs are trained."""
    seed: Seed = 123
    """Of the first weights, the order of clips, dropout and all else that is drawn."""

    def __post_init__(self) -> None:
        positive = ("blocks", "hidden", "ffn", "epochs", "batch_clips", "learning_rate", "clip_norm", "temperature")
        for name in (*positive, "audio_scale"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("dropout", "label_smoothing", "ema"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("mixup", self.mixup >= 0, "at least 0")
        self._require("train_ratio", 0 < self.train_ratio <= 1, "above 0 and at most 1")
        self._require("gate", self.gate is None or 0 <= self.gate <= 1, "from 0 to 1")
        self._require("blend", all(0 <= share <= 1 for share in self.blend), "from 0 to 1")
        self._require("patience", self.patience is None or self.patience > 0, "above 0")
        self._require("seed", self.seed >= 0, "at least 0")
        if self.learn_gate and self.gate is None:
            raise UsageError("a gate that is learned must start somewhere: give its first share as `gate`")
        if self.blend and self.gate is not None:
            raise UsageError("`blend` is for heads that are trained without a gate: leave one of the two out")

    def _require(self, name: str, fine: bool, rule: str) -> None:
        if not fine:
            raise UsageError(f"{name} of the recipe {self.name!r} must be {rule}, not {getattr(self, name)}")

    def changes(self) -> dict[str, object]:
        """Fields that differ from the paper's, but for name and seed."""
        plain = Recipe()
        return {
            field.name: value
            for field in fields(self)
            if field.name not in ("name", "seed") and (value := getattr(self, field.name)) != getattr(plain, field.name)
        }


_ALL = (
    Recipe(),
    # the paper's ablations, and its script
    Recipe(name="linear", head="linear"),
    Recipe(name="two-blocks", blocks=2),
    Recipe(name="cross-modal", head="cross-modal"),
    Recipe(name="prob-avg", score="prob-avg"),
    Recipe(name="feature-avg", score="feature-avg"),
    Recipe(name="without-other", background=False),
    # its Table 6 has the epochs 1, 3, 5 and 6 as the best ones of 100, 75, 50 and 25 %: five are too few for the last
    Recipe(name="ratio-75", train_ratio=0.75, epochs=10),
    Recipe(name="ratio-50", train_ratio=0.5, epochs=10),
    Recipe(name="ratio-25", train_ratio=0.25, epochs=10),
    Recipe(name="published-script", epochs=10, select="test"),
    # a control
    Recipe(name="shuffled-labels", shuffle_labels=True),
    # our own
    Recipe(name="residual", gate=0.5),
    Recipe(name="learned-gate", gate=0.5, learn_gate=True),
    Recipe(name="blended", blend=(0.2, 0.4, 0.6, 0.8, 1.0)),
    Recipe(name="unit-inputs", audio_scale=1.0),
    Recipe(name="smooth", label_smoothing=0.1),
    Recipe(name="sharp", temperature=0.1),
    Recipe(name="mixed", mixup=0.4),
    Recipe(name="averaged", ema=0.99),
    Recipe(name="sharp-mixed", temperature=0.05, mixup=0.4),
    Recipe(name="gated-smooth", gate=0.5, audio_scale=1.0, temperature=0.1, label_smoothing=0.1, mixup=0.4, ema=0.99),
    # "sharp-mixed" for the demo world, whose embeddings are small and whose clips are few
    Recipe(
        name="demo",
        temperature=0.05,
        mixup=0.4,
        hidden=64,
        ffn=128,
        learning_rate=5e-4,
        epochs=20,
        halve_at=(8, 14, 18),
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Named recipes: the paper's first, then its ablations, a control, and our own."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`, or the one in the TOML file `name`.

    Raises:
        UsageError: there is none, and says which there are; or the file is not one.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}, or give a TOML file")
    return RECIPES[name]


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from a TOML file: fields of `Recipe`, and as `base` the named recipe that they change.

    Its `name` is that of the file unless the file has another; it names a folder, and must not be a known recipe's.

    Raises:
        UsageError: the file cannot be read, is no TOML, or holds unknown fields or invalid values.
    """
    check_path(file, UsageError)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{file} cannot be read: {reason}; give a TOML file of a recipe's fields") from error
    base, name = values.pop("base", "paper"), values.setdefault("name", file.stem)
    if not isinstance(base, str) or base not in RECIPES:
        raise UsageError(f"{file}: base must be one of {', '.join(RECIPES)}, not {base!r}")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RECIPES:
        raise UsageError(
            f"{file}: the recipe needs a name of its own of letters, digits, '.', '_' and '-', and {name!r} is none"
        )
    known = [field.name for field in fields(Recipe)]
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"{file}: there is no field {unknown[0]!r}; there are: base, {', '.join(known)}")
    try:
        return msgspec.convert({**asdict(RECIPES[base]), **values}, Recipe)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{file}: {error}") from error
