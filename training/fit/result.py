"""Result of a training run: the figures of each epoch, and which epoch was selected."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from ovavel.eval.accuracy.protocols import Rows
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.recipes import Recipe

__all__ = ["RESULT", "DataInfo", "Epoch", "FitResult", "PartInfo", "RowTable", "pick", "row_table"]

RESULT = "result.json"

RowTable = dict[str, dict[str, float] | None]
"""Part of the clips ("seen", "unseen", "total") → measure ("acc", "seg", "eve", "avg") → value in [0, 1]."""


def row_table(rows: Rows) -> RowTable:
    """Return `rows` as a dict, the form stored in JSON."""
    return {part: scores._asdict() if scores else None for part, scores in rows._asdict().items()}


class PartInfo(Struct, frozen=True, kw_only=True):
    """Clip counts of a split."""

    clips: int
    damaged: int

    @classmethod
    def of(cls, part: Part) -> Self:
        """Count `part`."""
        return cls(clips=len(part), damaged=part.damaged)

    @property
    def summary(self) -> str:
        """How many clips were used, and how many were damaged."""
        summary = f"{self.clips} of {self.clips + self.damaged} clips"
        return f"{summary}; {self.damaged} damaged" if self.damaged else summary


class DataInfo(Struct, frozen=True, kw_only=True):
    """The data that the head was trained and evaluated on."""

    fingerprint: str
    embedding_size: int
    train_classes: int
    """Including the background."""
    classes: int
    """Including the background."""
    train: PartInfo
    val: PartInfo
    test: PartInfo | None

    @classmethod
    def of(cls, data: Data) -> Self:
        """Describe `data`."""
        return cls(
            fingerprint=data.fingerprint,
            embedding_size=data.text.sizes[0],
            train_classes=len(data.train_text),
            classes=len(data.text),
            train=PartInfo.of(data.train),
            val=PartInfo.of(data.val),
            test=PartInfo.of(data.test) if data.test else None,
        )


class Epoch(Struct, frozen=True, kw_only=True):
    """One pass over the training clips, and the head's scores after it."""

    number: int
    """Counted from 1."""
    learning_rate: float
    loss: float
    """Mean training cross-entropy per segment."""
    gate: tuple[float, float] | None
    """Share of the blocks' output in the audio and the vision features; None without a gate."""
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
    """Number of the best epoch on the test split, which the published script selects; None without a test split."""

    @property
    def best(self) -> Epoch:
        """The epoch whose head was kept."""
        return self.epochs[self.chosen - 1]

    def encode(self) -> bytes:
        """Return the bytes of `result.json`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the result in `folder`, or return None if there is no such file.

        Raises:
            InputError: the file cannot be read.
        """
        file = folder / RESULT
        try:
            result = read_json(file.read_bytes(), cls)
            if not 1 <= result.chosen <= len(result.epochs):
                raise ValueError(f"epoch {result.chosen} was chosen, and there are {len(result.epochs)}")
            return result
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); train again with --overwrite") from error


def pick(recipe: Recipe, epochs: tuple[Epoch, ...]) -> tuple[int, int | None]:
    """Return the number of the epoch that `recipe` selects and of the best one on test. The first wins a tie."""
    on_test = None
    if all(epoch.test for epoch in epochs):
        on_test = 1 + max(range(len(epochs)), key=lambda i: _avg(epochs[i].test, "total"))
    if recipe.select == "test":
        if on_test is None:
            raise UsageError("cannot select the epoch on the test split, which was not read")
        return on_test, on_test
    part = "total" if recipe.select == "val" else "seen"
    return 1 + max(range(len(epochs)), key=lambda i: _avg(epochs[i].val, part)), on_test


def _avg(table: RowTable | None, part: str) -> float:
    scores = (table or {}).get(part)
    if scores is None:
        raise UsageError(f"cannot select the epoch on {part} clips: there are none")
    return scores["avg"]
