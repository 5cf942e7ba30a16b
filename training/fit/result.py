"""What became of a training run: epoch by epoch, and which epoch was picked."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.accuracy.protocols import Rows
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.recipes import Recipe

__all__ = ["RESULT", "DataInfo", "Epoch", "FitResult", "PartInfo", "RowTable", "pick", "row_table", "rows_of"]

RESULT = "result.json"

RowTable = dict[str, dict[str, float] | None]
"""Part of the clips ("seen", "unseen", "total") → measure ("acc", "seg", "eve", "avg") → value in [0, 1]."""


def row_table(rows: Rows) -> RowTable:
    """Return `rows` with names, as JSON keeps them."""
    return {part: scores._asdict() if scores else None for part, scores in rows._asdict().items()}


def rows_of(table: RowTable) -> Rows:
    """Undo `row_table`."""
    return Rows(**{part: Scores(**scores) if scores else None for part, scores in table.items()})  # type: ignore[arg-type]


class PartInfo(Struct, frozen=True, kw_only=True):
    """How many clips of a split were there."""

    clips: int
    damaged: int

    @classmethod
    def of(cls, part: Part) -> Self:
        """Count `part`."""
        return cls(clips=len(part), damaged=part.damaged)

    @property
    def counted(self) -> str:
        """How many clips were used, and how many could not be."""
        told = f"{self.clips} of {self.clips + self.damaged} clips"
        return f"{told}; {self.damaged} damaged" if self.damaged else told


class DataInfo(Struct, frozen=True, kw_only=True):
    """What the head was trained and measured on."""

    fingerprint: str
    embedding_size: int
    train_classes: int
    """With the background."""
    classes: int
    """With the background."""
    train: PartInfo
    val: PartInfo
    test: PartInfo | None

    @classmethod
    def of(cls, data: Data) -> Self:
        """Describe `data`."""
        return cls(
            fingerprint=data.fingerprint,
            embedding_size=data.text.shape[1],
            train_classes=len(data.train_text),
            classes=len(data.text),
            train=PartInfo.of(data.train),
            val=PartInfo.of(data.val),
            test=PartInfo.of(data.test) if data.test else None,
        )


class Epoch(Struct, frozen=True, kw_only=True):
    """One time through the training clips, and what the head was worth after it."""

    number: int
    """From 1 on."""
    learning_rate: float
    loss: float
    """Mean cross-entropy per segment while it trained."""
    gate: tuple[float, float] | None
    """Shares of the blocks' output in audio and vision features; None without a gate."""
    val: RowTable
    test: RowTable | None


class FitResult(Struct, frozen=True, kw_only=True):
    """A trained head."""

    recipe: Recipe
    data: DataInfo
    epochs: tuple[Epoch, ...]
    chosen: int
    """Number of the epoch whose head was kept."""
    test_choice: int | None
    """Number of the epoch that is best on the test split, as the published script picks; None without a test split."""

    @property
    def best(self) -> Epoch:
        """The epoch whose head was kept."""
        return self.epochs[self.chosen - 1]

    def encode(self) -> bytes:
        """Return the bytes of `result.json`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the result in `folder`; None if there is none.

        Raises:
            InputError: there is one that cannot be read.
        """
        file = folder / RESULT
        try:
            result = read_json(file.read_bytes(), cls)
            if not 1 <= result.chosen <= len(result.epochs):
                raise ValueError(f"of {len(result.epochs)} epochs, number {result.chosen} was chosen")
            return result
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); train again with --overwrite") from error


def pick(recipe: Recipe, epochs: tuple[Epoch, ...]) -> tuple[int, int | None]:
    """Return the number of the epoch that `recipe` selects, and of the one that is best on test. The first one wins."""
    on_test = None
    if all(epoch.test for epoch in epochs):
        on_test = 1 + max(range(len(epochs)), key=lambda i: _avg(epochs[i].test, "total"))
    if recipe.select == "test":
        if on_test is None:
            raise UsageError("the epoch is to be selected on the test split, which was not read")
        return on_test, on_test
    part = "total" if recipe.select == "val" else "seen"
    return 1 + max(range(len(epochs)), key=lambda i: _avg(epochs[i].val, part)), on_test


def _avg(table: RowTable | None, part: str) -> float:
    scores = (table or {}).get(part)
    if scores is None:
        raise UsageError(f"the epoch is to be selected on {part} clips, and there are none")
    return scores["avg"]
