"""Pooled sound is the full encoder where the positions of twins are equal, and near it with trained weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ovavel.runtime.pipeline.preprocess import prepare_waveform
from ovavel.runtime.verification.samples import random_waveform, sample_waveforms
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, PatchTower
from ovavel.training.models.imagebind.pooled import PooledTower

NEAR = {"rtol": 0, "atol": 2e-6}


@pytest.fixture
def tower() -> PatchTower:
    """An encoder of sound with random weights, whose patches have the same positions ten columns later."""
    torch.manual_seed(0)
    tower = ImageBind(ImageBindConfig.tiny(), ("audio",)).towers["audio"].eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert isinstance(tower, PatchTower)
    tower.requires_grad_(requires_grad=False)
    positions = tower.positions[:, 1:].unflatten(1, (12, 19))  # a view
    positions[:, :, 10:] = positions[:, :, :9]
    return tower


def sounds() -> Tensor:
    waveforms = [*sample_waveforms().values(), random_waveform(0)]
    return torch.stack([torch.from_numpy(prepare_waveform(waveform)) for waveform in waveforms])


def test_pooling_loses_nothing_where_twins_have_one_position(tower: PatchTower) -> None:
    torch.testing.assert_close(PooledTower(tower)(sounds()), tower(sounds()), **NEAR)


def test_pooling_loses_something_where_they_have_not(tower: PatchTower) -> None:
    tower.positions[0, 1:] += torch.randn(228, 48)
    assert (PooledTower(tower)(sounds()) - tower(sounds())).abs().max() > 1e-3


def test_a_second_that_is_not_held_twice_is_another_one(tower: PatchTower) -> None:
    """So log-mels of noise, which nothing has prepared, are no inputs to compare it on."""
    noise = torch.randn(2, 1, 128, 204)
    assert (PooledTower(tower)(noise) - tower(noise)).abs().max() > 1e-3


def test_a_batch_is_its_sounds_one_by_one_on_about_half_of_the_tokens(tower: PatchTower) -> None:
    pooled, seen = PooledTower(tower), list[int]()
    tower.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    together = pooled(sounds())
    alone = torch.cat([pooled(sound[None]) for sound in sounds()])
    torch.testing.assert_close(together, alone, **NEAR)
    assert set(seen) == {121}
