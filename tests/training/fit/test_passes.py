"""Training on noisy passes of the sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.synthetic import DIM, PASSES, SEGMENTS
from support.training.fits import COMPLEX, FAST

from ovavel.eval.datasets.audio_passes import PassReader, ShardPasses
from ovavel.runtime.errors import UsageError
from ovavel.training.fit.data import Data
from ovavel.training.fit.train import HEAD, fit_data

NOISY = replace(FAST, stochastic_depth=True)


class Watched(PassReader):
    """Notes which passes are taken."""

    def __init__(self, passes: np.ndarray) -> None:
        places = np.arange(len(passes))
        super().__init__(passes.shape[1], [ShardPasses(lambda: passes, places, places)])
        self.taken: list[np.ndarray] = []

    def take(self, passes: np.ndarray) -> np.ndarray:
        self.taken.append(passes)
        return super().take(passes)


def with_passes(data: Data, passes: PassReader | None, **changes: np.ndarray) -> Data:
    return replace(data, train=replace(data.train, passes=passes, **changes))


def repeated(data: Data) -> np.ndarray:
    """Passes that are the clean embeddings."""
    return np.repeat(data.train.audio[:, np.newaxis], PASSES, axis=1)


def test_it_is_the_passes_that_are_trained_on(data: Data, tmp_path: Path) -> None:
    """Without the clean audio, which is not finite here, it trains the same."""
    whole = fit_data(NOISY, data, tmp_path / "whole")
    lost = with_passes(data, data.train.passes, audio=np.full_like(data.train.audio, np.nan))
    assert fit_data(NOISY, lost, tmp_path / "lost") == whole
    assert (tmp_path / "lost" / HEAD).read_bytes() == (tmp_path / "whole" / HEAD).read_bytes()
    with pytest.raises(UsageError, match="diverged"):
        fit_data(FAST, lost, tmp_path / "clean")
    assert whole.epochs[0].loss != fit_data(FAST, data, tmp_path / "paper").epochs[0].loss


def test_passes_that_are_clean_train_the_clean_head(data: Data, tmp_path: Path) -> None:
    """So nothing but the audio differs: order, dropout and initial weights are those of the recipe without."""
    noisy = fit_data(NOISY, with_passes(data, Watched(repeated(data))), tmp_path / "noisy")
    assert noisy.epochs == fit_data(FAST, data, tmp_path / "clean").epochs


def test_each_epoch_draws_a_pass_for_each_clip(data: Data, tmp_path: Path) -> None:
    reader = Watched(repeated(data))
    recipe = replace(NOISY, epochs=4)
    fit_data(recipe, with_passes(data, reader), tmp_path / "a")
    assert len(reader.taken) == 4
    for number, taken in enumerate(reader.taken):
        assert taken.shape == (len(data.train),)
        assert set(taken.tolist()) == set(range(PASSES))
        assert not any(np.array_equal(taken, other) for other in reader.taken[:number])
    again, other = Watched(repeated(data)), Watched(repeated(data))
    fit_data(recipe, with_passes(data, again), tmp_path / "b")
    assert np.array_equal(again.taken, reader.taken)
    fit_data(replace(recipe, seed=7), with_passes(data, other), tmp_path / "c")
    assert not np.array_equal(other.taken, reader.taken)


def test_other_recipes_do_not_read_the_passes(data: Data, tmp_path: Path) -> None:
    reader = Watched(np.full((len(data.train), 1, SEGMENTS, DIM), np.nan, np.float32))
    result = fit_data(FAST, with_passes(data, reader), tmp_path)
    assert not reader.taken
    assert np.isfinite(result.epochs[-1].loss)


@pytest.mark.parametrize("below", [False, True])
def test_features_without_passes_are_refused(below: bool, data: Data, tmp_path: Path) -> None:
    (tmp_path / "noisy.toml").write_text("stochastic_depth = true")
    recipe = replace(COMPLEX, trunk=str(tmp_path / "noisy.toml")) if below else NOISY
    with pytest.raises(UsageError, match=r"no such passes.*`ovavel train features --passes 5 --drop-path 0.1`"):
        fit_data(recipe, with_passes(data, None), tmp_path / "out")
    assert not (tmp_path / "out").exists()
