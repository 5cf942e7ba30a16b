"""Training recipes of a head: the published one, its ablations, other systems' heads, and our own variations.

Nothing here imports PyTorch, so that the command line can be built from it.
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
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.bounds import Meta, Seed
from ovavel.runtime.system.paths import check_path
from ovavel.training.heads.registry import head_names

__all__ = ["RECIPES", "SETTINGS", "Recipe", "find_recipe", "read_recipe"]

SETTINGS = (
    "blocks", "levels", "hidden", "ffn", "dropout", "audio_scale", "gate", "learn_gate", "score", "train_trunk",
)  # fmt: skip
"""Fields of a recipe that are for its head, where it has a parameter of that name."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything but the data that determines a trained head; the paper is the default (docs/method.md, Training)."""

    name: str = "paper"
    """Name shown in tables."""
    head: str = "temporal"
    """Kind of head: temporal (attention among the segments of a modality), linear (one matrix applied to each
    segment), cross-modal (attention to the segments of the other modality), ave, psp, cmra, mm-pyramid, complex, or one
    that another package adds. A setting that the head does not have is refused."""
    blocks: Annotated[int, Meta(ge=1, le=64)] = 1
    """Blocks per modality of temporal, linear and cross-modal."""
    levels: Annotated[int, Meta(ge=1, le=4)] = 1
    """Levels of mm-pyramid."""
    hidden: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Size of the queries, keys and values; default: 256."""
    ffn: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Inner size of the feed-forward layers; default: 512, for cmra 2048, for mm-pyramid 2014."""
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of inner values that are dropped in training."""
    audio_scale: Annotated[float, Meta(gt=0, le=1_000_000)] = 20.0
    """Norm of the audio embeddings at the input of the head; vision has norm 1."""
    trunk: str | None = None
    """Head that complex is built on: a recipe, which is trained first, or a trained head (.safetensors or .pth)."""
    train_trunk: bool = False
    """Train the trunk of complex as well; otherwise it stays frozen."""
    gate: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of the blocks' output in the features, in [0, 1]; the rest is the original embedding, both of unit norm.
    Without a gate, the features are the blocks' output alone."""
    learn_gate: bool = False
    """Learn that share, one per modality, starting from --gate."""
    blend: tuple[Annotated[float, Meta(ge=0, le=1)], ...] = ()
    """Shares to try after training a head without a gate; the best one on validation is kept. This is weight averaging
    with the training-free head, done in feature space."""
    score: Literal["geometric", "prob-avg", "feature-avg"] = "geometric"
    """Value that is min-max scaled into scores: the geometric mean of both similarities; their arithmetic mean; the
    similarity of the mean of both features."""
    background: bool = True
    """Train and decide with the background among the names. Without it, background segments are left out of the loss,
    and every segment is assigned to some class."""
    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    """Passes over the training clips."""
    batch_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 32
    """Clips per step, over all processes together."""
    learning_rate: Annotated[float, Meta(gt=0, le=1_000_000)] = 5e-5
    """Learning rate of Adam."""
    halve_at: tuple[Annotated[int, Meta(ge=1, le=1_000_000)], ...] = (10, 20, 30)
    """Epochs after which the learning rate is halved."""
    clip_norm: Annotated[float, Meta(gt=0, le=1_000_000)] = 0.8
    """Maximum gradient norm; larger gradients are scaled down."""
    temperature: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    """Divisor of the scores, which makes them the logits of the cross-entropy."""
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes."""
    pair_loss: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Weight of PSP's pair loss, for any head: the similarities of both senses' features over a clip should have
    equal shares in its event segments and none elsewhere. 100 as published; 0 disables it."""
    mixup: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Mix each clip with another of its batch, with a share drawn from Beta(mixup, mixup); 0 disables it."""
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of the weights, which is validated and saved; 0 disables it."""
    train_ratio: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the training clips to use."""
    stochastic_depth: bool = False
    """Train on noisy sound: in each epoch, the audio of each clip is one of its passes with stochastic depth, drawn at
    random. The features need such passes ('ovavel train features --passes'); validation and test stay clean."""
    shuffle_labels: bool = False
    """Shuffle the labels of the training segments: a control that can learn only how frequent each label is."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the blocks in training (autocast); similarities, scores and loss stay in fp32."""
    select: Literal["val", "val-seen", "test"] = "val"
    """Clips that select the epoch by the mean of the three measures: the validation split, its seen classes only, or
    the test split, as in the published script."""
    patience: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Stop after this many epochs without improvement; by default all epochs are trained."""
    seed: Seed = 123
    """Seed of the initial weights, the order of the clips, dropout and all other random choices."""

    def __post_init__(self) -> None:
        positive = ("blocks", "hidden", "ffn", "epochs", "batch_clips", "learning_rate", "clip_norm", "temperature")
        for name in (*positive, "levels", "audio_scale"):
            self._require(name, getattr(self, name) is None or getattr(self, name) > 0, "above 0")
        for name in ("dropout", "label_smoothing", "ema"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("mixup", self.mixup >= 0, "at least 0")
        self._require("pair_loss", self.pair_loss >= 0, "at least 0")
        self._require("train_ratio", 0 < self.train_ratio <= 1, "above 0 and at most 1")
        self._require("gate", self.gate is None or 0 <= self.gate <= 1, "from 0 to 1")
        self._require("blend", all(0 <= share <= 1 for share in self.blend), "from 0 to 1")
        self._require("patience", self.patience is None or self.patience > 0, "above 0")
        self._require("seed", self.seed >= 0, "at least 0")
        if self.head not in head_names():
            raise UsageError(
                f"head of the recipe {self.name!r} must be one of {', '.join(head_names())}, not {quoted(self.head)}"
            )
        if self.learn_gate and self.gate is None:
            raise UsageError("a learned gate needs a starting value: give it as `gate`")
        if self.blend and self.gate is not None:
            raise UsageError("`blend` is for heads trained without a gate: drop either `blend` or `gate`")

        if self.pair_loss and self.trunk and not self.train_trunk:
            raise UsageError("a pair loss trains the features, which a frozen trunk keeps: set `train_trunk` as well")

    def _require(self, name: str, valid: bool, rule: str) -> None:
        if not valid:
            raise UsageError(f"{name} of the recipe {self.name!r} must be {rule}, not {getattr(self, name)}")

    def changes(self) -> dict[str, object]:
        """Return the fields that differ from the paper's, except name and seed."""
        return {
            field.name: value
            for field in fields(self)
            if field.name not in ("name", "seed") and (value := getattr(self, field.name)) != field.default
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
    # in its Table 6, epochs 1, 3, 5 and 6 are best with 100, 75, 50 and 25 %: five epochs are too few for 25 %
    Recipe(name="ratio-75", train_ratio=0.75, epochs=10),
    Recipe(name="ratio-50", train_ratio=0.5, epochs=10),
    Recipe(name="ratio-25", train_ratio=0.25, epochs=10),
    Recipe(name="published-script", epochs=10, select="test"),
    # in the script, the audio encoder is in training mode as well
    Recipe(name="paper-drop-path", stochastic_depth=True),
    # the other systems of its Table 2, and a later one, in the place of the block
    Recipe(name="ave", head="ave"),
    Recipe(name="psp", head="psp"),
    Recipe(name="cmra", head="cmra"),
    Recipe(name="mm-pyramid", head="mm-pyramid", dropout=0.2),
    Recipe(name="complex", head="complex", trunk="paper", epochs=10),
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
    # "sharp-mixed" for the demo world, which has small embeddings and few clips
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
        UsageError: there is no such recipe, or the file is not a recipe.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}, or give a TOML file")
    return RECIPES[name]


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from a TOML file: fields of `Recipe`, and in `base` the named recipe that they modify.

    `name` defaults to that of the file. It becomes a folder name, and must not be that of a known recipe.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has unknown fields or invalid values.
    """
    check_path(file, UsageError)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{file} cannot be read: {reason}; give a TOML file of a recipe's fields") from error
    base, name = values.pop("base", "paper"), values.setdefault("name", file.stem)
    if not isinstance(base, str) or base not in RECIPES:
        raise UsageError(f"{file}: base must be one of {', '.join(RECIPES)}, not {quoted(str(base))}")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RECIPES:
        raise UsageError(f"{file}: the recipe needs a new name of letters, digits, '.', '_' and '-', not {name!r}")
    known = [field.name for field in fields(Recipe)]
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"{file}: there is no field {unknown[0]!r}; the fields are base, {', '.join(known)}")
    try:
        return msgspec.convert({**asdict(RECIPES[base]), **values}, Recipe)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{file}: {error}") from error
