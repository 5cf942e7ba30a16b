"""Which epoch is selected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.synthetic import make_data
from support.training.fits import FAST

from ovavel.runtime.errors import UsageError
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import Epoch, pick
from ovavel.training.fit.train import fit_data


def epoch(number: int, seen: float | None, total: float, test: float | None) -> Epoch:
    def scores(avg: float | None) -> dict[str, float] | None:
        return None if avg is None else {"acc": avg, "seg": avg, "eve": avg, "avg": avg}

    return Epoch(
        number=number,
        learning_rate=1,
        loss=1,
        gate=None,
        val={"seen": scores(seen), "unseen": None, "total": scores(total)},
        test=None if test is None else {"seen": None, "unseen": None, "total": scores(test)},
    )


def test_the_epoch_is_selected_by_the_recipe() -> None:
    epochs = (epoch(1, 0.5, 0.2, 0.7), epoch(2, 0.4, 0.6, 0.1), epoch(3, 0.5, 0.6, 0.7))
    assert pick(Recipe(), epochs) == (2, 1)
    assert pick(Recipe(select="val-seen"), epochs) == (1, 1)
    assert pick(Recipe(select="test"), epochs[1:]) == (2, 2)
    untested = (epoch(1, None, 0.5, None),)
    assert pick(Recipe(), untested) == (1, None)
    for select in ("test", "val-seen"):
        with pytest.raises(UsageError):
            pick(Recipe(select=select), untested)  # type: ignore[arg-type]


def test_an_impossible_selection_is_refused_before_training(tmp_path: Path) -> None:
    data = make_data(train=8, val=8, test=None)
    unseen = replace(data, val=replace(data.val, seen=np.zeros(8, np.bool_)))
    for recipe, each in ((replace(FAST, select="test"), data), (replace(FAST, select="val-seen"), unseen)):
        with pytest.raises(UsageError, match="cannot select"):
            fit_data(recipe, each, tmp_path, progress=lambda *_: pytest.fail("it trained"))
