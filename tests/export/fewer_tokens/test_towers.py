"""Encoders that compute fewer tokens are the full ones where nothing is left out, or only what is equal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ovavel.export.fewer_tokens.towers import POOLINGS, ChangedTokens, FewerTokens, merged_blocks, pooling
from ovavel.training.models.imagebind.model import Block, ImageBind, ImageBindConfig, PatchTower, TowerConfig

TOLERANCE = 2e-6
NEAR = {"rtol": 0, "atol": TOLERANCE}


@pytest.fixture(scope="module", params=["vision", "audio"])
def tower(request: pytest.FixtureRequest) -> PatchTower:
    torch.manual_seed(0)
    tower = ImageBind(ImageBindConfig.tiny(), (request.param,)).towers[request.param].eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert isinstance(tower, PatchTower)
    return tower.requires_grad_(requires_grad=False)


def inputs(tower: PatchTower, count: int) -> Tensor:
    shape = (3, 224, 224) if tower.stem.in_channels == 3 else (1, 128, 204)
    return torch.randn(count, 1, *shape, generator=torch.Generator().manual_seed(1))


def test_with_a_budget_of_all_tokens_every_picture_is_encoded_in_full(tower: PatchTower) -> None:
    changed = ChangedTokens(tower, tower.positions.shape[1])
    for image in inputs(tower, 3):
        torch.testing.assert_close(changed(image), tower(image), **NEAR)


def test_what_has_not_changed_costs_nothing_and_what_has_is_lost_beyond_the_budget(tower: PatchTower) -> None:
    first, other = inputs(tower, 2)
    changed = ChangedTokens(tower, 1)  # the class token alone
    for _ in range(2):
        torch.testing.assert_close(changed(first), tower(first), **NEAR)
    assert (changed(other) - tower(other)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize(("budget", "pictures"), [(33, 1), (32, 2), (17, 2), (12, 3)])
def test_a_budget_is_spent_on_what_has_changed_most(budget: int, pictures: int) -> None:
    """In one block, the last one, whose keys are those of all tokens. What is left out is computed the next time."""
    torch.manual_seed(0)
    config = TowerConfig(width=32, blocks=1, heads=2)
    tower = PatchTower(config, 16, torch.nn.Conv2d(3, 32, 14, 14), 256).eval().requires_grad_(requires_grad=False)
    before, after = torch.randn(2, 1, 3, 224, 224).unbind()
    after[..., 28:] = before[..., 28:]  # two columns of 16 patches remain other ones
    changed = ChangedTokens(tower, budget)
    changed(before)
    exact = [torch.allclose(changed(after), tower(after), **NEAR) for _ in range(pictures)]
    assert exact == [False] * (pictures - 1) + [True]


def test_merging_none_is_the_full_encoder(tower: PatchTower) -> None:
    (image,) = inputs(tower, 1)
    torch.testing.assert_close(FewerTokens(tower, 0)(image), tower(image), **NEAR)


@pytest.mark.parametrize("extra_token", [False, True])
@pytest.mark.parametrize("merged", [1, 5, 20])
def test_equal_tokens_are_merged_without_loss(merged: int, extra_token: bool) -> None:
    torch.manual_seed(merged)
    config = TowerConfig(width=16, blocks=2, heads=2)
    first, second = (Block(config, extra_token=extra_token).eval().requires_grad_(requires_grad=False) for _ in "12")
    odd = torch.randn(1, 20, 16)
    pairs = torch.stack((odd, odd[:, torch.randperm(20)]), dim=2)  # each odd place equals one even place
    x = torch.cat((torch.randn(1, 1, 16), pairs.flatten(1, 2)), dim=1)
    fewer, sizes = merged_blocks([second], *merged_blocks([first], x, None, merged), 0)
    full = second(first(x))
    assert sizes is not None
    assert fewer.shape[1] == sizes.shape[1] == 41 - merged
    assert sizes.sum() == 41
    torch.testing.assert_close(fewer[:, 0], full[:, 0], **NEAR)
    away = torch.cdist(fewer, full, compute_mode="donot_use_mm_for_euclid_dist")[0]
    assert away.min(dim=1).values.max() < 10 * TOLERANCE  # each is one of the full ones,
    assert away.min(dim=0).values.max() < 10 * TOLERANCE  # and none of these is missing


@pytest.mark.parametrize("kind", POOLINGS)
def test_half_of_the_sound_is_all_of_it_where_halves_are_equal(kind: str) -> None:
    torch.manual_seed(0)
    tower = ImageBind(ImageBindConfig.tiny(), ("audio",)).towers["audio"].eval()
    assert isinstance(tower, PatchTower)
    tower.requires_grad_(requires_grad=False)
    columns = torch.randn(12, 10, 48)  # of positions; patches are 0, as the kernels are
    tower.stem.weight.zero_()
    column = torch.arange(19)
    places = columns[:, column // 2 if kind.startswith("neighbours") else column % 10]
    tower.positions[0, 1:] = places.flatten(0, 1)
    weights, sizes = pooling(kind)  # type: ignore[arg-type]
    assert sizes.sum() == weights.shape[1] == 229
    assert weights.shape[0] == 121
    (image,) = inputs(tower, 1)
    torch.testing.assert_close(FewerTokens(tower, pool=kind)(image), tower(image), **NEAR)  # type: ignore[arg-type]
    tower.positions[0, 1:] = torch.randn(228, 48)
    assert (FewerTokens(tower, pool=kind)(image) - tower(image)).abs().max() > 100 * TOLERANCE  # type: ignore[arg-type]
