"""A head whose trunk is trained first, or read from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.rows import rows_of
from support.synthetic import DIM
from support.training.fits import COMPLEX, FAST, OTHERS, Cut, contents

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.fit.data import Data
from ovavel.training.fit.decide import evaluate
from ovavel.training.fit.recipes import find_recipe
from ovavel.training.fit.result import FitResult
from ovavel.training.fit.train import HEAD, fit_data
from ovavel.training.heads.base import load_head
from ovavel.training.heads.complex import ComplexHead
from ovavel.training.heads.temporal import TemporalHead


def test_a_trunk_is_trained_first_and_resumed(data: Data, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text('base = "demo"\nepochs = 2')
    recipe = replace(COMPLEX, trunk=str(tmp_path / "short.toml"))
    seen: list[tuple[float | None, float | None]] = []

    def note(_what: str, done: float | None = None, total: float | None = 1.0, _note: str = "") -> None:
        seen.append((done, total))

    whole = fit_data(recipe, data, tmp_path / "whole", progress=note)
    assert seen == [(done, 2 * 6 + 3 * 6) for done in range(1, 2 * 6 + 3 * 6 + 1)]
    trunk = fit_data(find_recipe(recipe.trunk or ""), data, tmp_path / "short")
    assert FitResult.read(tmp_path / "whole" / "trunk") == trunk
    for stop in (7, 2 * 6 + 8):

        def interrupt(
            _what: str, done: float | None = None, _total: float | None = 1.0, _note: str = "", stop: int = stop
        ) -> None:
            if done == stop:
                raise Cut

        out = tmp_path / f"cut{stop}"
        with pytest.raises(Cut):
            fit_data(recipe, data, out, progress=interrupt)
        assert fit_data(recipe, data, out) == whole
        assert contents(out) == contents(tmp_path / "whole")
    head, below = load_head(tmp_path / "whole" / HEAD), load_head(tmp_path / "short" / HEAD)
    assert isinstance(head, ComplexHead)
    assert all(torch.equal(weight, below.state_dict()[name]) for name, weight in head.trunk.state_dict().items())
    assert (head.norms[0].running_mean != 0).all()
    assert data.test
    assert evaluate(head, data.test, data.text) == rows_of(whole.best.test or {})
    trained = fit_data(replace(recipe, train_trunk=True), data, tmp_path / "trained")
    both = load_head(tmp_path / "trained" / HEAD)
    assert isinstance(both, ComplexHead)
    assert not torch.equal(
        both.trunk.state_dict()["a_sa_blocks.0.norm1.bias"], below.state_dict()["a_sa_blocks.0.norm1.bias"]
    )
    assert trained.epochs[0].loss != whole.epochs[0].loss


def test_a_trunk_from_a_file_belongs_to_the_run(data: Data, tmp_path: Path) -> None:
    recipe = replace(COMPLEX, trunk=str(tmp_path / "below.safetensors"))
    with pytest.raises(CheckpointError, match=r"no checkpoint .*below\.safetensors"):
        fit_data(recipe, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    TemporalHead(1, DIM, 4, 4).save(tmp_path / "below.safetensors")
    result = fit_data(recipe, data, tmp_path / "out")
    assert fit_data(recipe, data, tmp_path / "out") == result
    TemporalHead(1, DIM, 4, 4).save(tmp_path / "below.safetensors")
    with pytest.raises(UsageError, match="--overwrite"):
        fit_data(recipe, data, tmp_path / "out")
    TemporalHead(1, DIM + 1, 4, 4).save(tmp_path / "below.safetensors")
    with pytest.raises(UsageError, match=f"of size {DIM + 1}, not {DIM}"):
        fit_data(recipe, data, tmp_path / "other")


def test_a_head_refuses_settings_that_it_does_not_have(data: Data, tmp_path: Path) -> None:
    for recipe, message in (
        (replace(FAST, head="psp"), "'psp' has no setting 'hidden'"),
        (replace(FAST, levels=2), "'temporal' has no setting 'levels'"),
        (replace(FAST, trunk="paper"), "'temporal' has no setting 'trunk'"),
        (replace(OTHERS["ave"], gate=0.5), "'ave' has no setting 'gate'"),
        (replace(OTHERS["ave"], blend=(0.5, 1.0)), "'ave' has no setting 'gate'"),
        (replace(OTHERS["psp"], score="prob-avg"), "'psp' has no setting 'score'"),
        (replace(COMPLEX, trunk=None), "needs the setting 'trunk'"),
        (replace(COMPLEX, trunk="papper"), "no recipe 'papper'"),
        (replace(COMPLEX, trunk="complex"), "without a trunk of its own, not 'complex'"),
    ):
        with pytest.raises(UsageError, match=message):
            fit_data(recipe, data, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_trunk_by_another_recipe_is_another_run(data: Data, tmp_path: Path) -> None:
    recipe = replace(COMPLEX, trunk="paper", epochs=1)
    first = replace(FAST, epochs=1)
    result = fit_data(recipe, data, tmp_path / "out", trunk_by=first)
    assert FitResult.read(tmp_path / "out" / "trunk") == fit_data(first, data, tmp_path / "alone")
    assert fit_data(recipe, data, tmp_path / "out", trunk_by=first) == result
    with pytest.raises(UsageError, match="--overwrite"):
        fit_data(recipe, data, tmp_path / "out", trunk_by=replace(first, epochs=2))
