"""Stochastic depth: the rate of each block, what is left out, and that the mean stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.golden_weights import golden_state
from torch import Tensor

from ovavel.training.models.imagebind.model import Block, ImageBind, ImageBindConfig, PatchTower
from ovavel.training.models.imagebind.published_names import published_name
from ovavel.training.models.imagebind.stochastic_depth import AUDIO_RATE, StochasticDepth
from ovavel.training.models.unit import unit_norm

TINY = ImageBindConfig.tiny()


@pytest.fixture
def tower() -> PatchTower:
    tower = ImageBind(TINY, ("audio",)).towers["audio"]
    assert isinstance(tower, PatchTower)
    state = golden_state(TINY)
    tower.load_state_dict({name: state[published_name("audio", name)] for name in tower.state_dict()})
    return tower.eval().requires_grad_(requires_grad=False)


def sounds(count: int) -> Tensor:
    return torch.randn((count, 1, 128, 204), generator=torch.Generator().manual_seed(3))


def test_the_rate_grows_linearly_from_the_first_block_to_the_last(tower: PatchTower) -> None:
    assert StochasticDepth(tower, AUDIO_RATE).rates == pytest.approx([0, 0.05, 0.1])
    tower.blocks = tower.blocks[:1]
    assert StochasticDepth(tower, AUDIO_RATE).rates == pytest.approx([0])


def test_branches_are_left_out_as_often_as_their_rate_says(tower: PatchTower) -> None:
    depth = StochasticDepth(tower, 0.4)
    factors = depth.draw("any", 20_000)
    assert factors.shape == (20_000, 3, 2)
    for rate, drawn in zip(depth.rates, factors.transpose(1, 2, 0), strict=True):
        for branch in drawn:
            assert set(branch.tolist()) == ({0.0, float(np.float32(1 / (1 - rate)))} if rate else {1.0})
            assert (branch == 0).mean() == pytest.approx(rate, abs=0.015)  # four deviations of the mean
    both = (factors[:, 2] == 0).all(axis=-1).mean()
    assert both == pytest.approx(0.4**2, abs=0.011)  # the branches of a block are drawn by themselves
    assert np.array_equal(depth.draw("any", 5), factors[:5])
    assert not np.array_equal(depth.draw("another", 50), factors[:50])


def test_a_branch_is_left_out_of_the_sum(tower: PatchTower) -> None:
    """The formula in plain steps, with a factor for each branch and sample."""
    depth, x = StochasticDepth(tower, 0.5), sounds(6)
    factors = depth.draw("some", 6)
    assert (factors == 0).any()
    with depth.applied(factors):
        found = tower(x)
    tokens = tower.stem_norm(tower.stem(x).flatten(2).transpose(1, 2))
    tokens = torch.cat((tower.class_token.expand(6, -1, -1), tokens), dim=1) + tower.positions
    for number, block in enumerate(tower.blocks):
        assert isinstance(block, Block)
        first, second = (torch.from_numpy(factors[:, number, branch, None, None]) for branch in (0, 1))
        tokens = tokens + first * block.attention(block.norm_1(tokens))
        tokens = tokens + second * block.fc2(F.gelu(block.fc1(block.norm_2(tokens))))
    wanted = unit_norm(tower.projection(tower.output_norm(tokens[:, 0])))
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
    assert (found - tower(x)).abs().max() > 1e-3


@pytest.mark.parametrize("branch", ["attention", "fc2"])
def test_the_mean_of_a_branch_is_that_without_stochastic_depth(tower: PatchTower, branch: str) -> None:
    depth, block = StochasticDepth(tower, 0.4), tower.blocks[-1]
    module: Callable[[Tensor], Tensor] = getattr(block, branch)
    width = TINY.audio.width * (4 if branch == "fc2" else 1)
    one = torch.randn((1, 5, width), generator=torch.Generator().manual_seed(1))
    clean = module(one)
    count = 4_000
    with depth.applied(depth.draw("mean", count)):
        mean = module(one.expand(count, -1, -1)).mean(dim=0, keepdim=True)
    share = mean / clean  # one factor for all values, of deviation (0.4 / 0.6 / 4000) ** 0.5
    assert share.std() < 1e-3
    assert share.mean() == pytest.approx(1, abs=4 * (0.4 / 0.6 / count) ** 0.5)


def test_without_a_rate_and_outside_nothing_changes(tower: PatchTower) -> None:
    x = sounds(3)
    clean = tower(x)
    depth = StochasticDepth(tower, 0.0)
    with depth.applied(depth.draw("any", 3)):
        assert torch.equal(tower(x), clean)
    depth = StochasticDepth(tower, 0.5)
    with depth.applied(depth.draw("any", 3)):
        assert not torch.equal(tower(x), clean)
    assert torch.equal(tower(x), clean)
