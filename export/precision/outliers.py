"""Gives random weights the outliers of trained ones, for measuring what quantisation does to them.

Random weights quantise too kindly: their activations are near to normally distributed. Trained transformers have a few
channels with LayerNorm gains tens of times the others' (Dettmers et al. 2022, "LLM.int8()"), a few hidden units that
answer far more than the others, and a few tokens whose residual is hundreds of times as large in one or two channels
(Sun et al. 2024, "Massive Activations in Large Language Models", section 2, vision transformers included).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from ovavel.training.models.imagebind.model import Block, PatchTower

__all__ = ["plant_outliers"]

_CHANNELS = 6
_GAIN = (20.0, 60.0)
_HIDDEN_UNITS = 10
_HIDDEN_GAIN = 8.0
_TOKENS = 3
_MASSIVE = 600.0
_COMPENSATED = 0.75
"""The weights that meet a large channel are divided by its gain to this power: trained weights are smaller there, but
the channel keeps more of a say than the others. At 1 the function would be that of the even weights."""


def plant_outliers(tower: nn.Module, seed: int = 0) -> None:
    """Change the weights of `tower` in place: large LayerNorm gains, large hidden units and massive tokens.

    Raises:
        TypeError: it is no encoder of sight or sound.
    """
    if not isinstance(tower, PatchTower):
        raise TypeError(f"outliers are for the encoders of sight and sound, not for {type(tower).__name__}")
    rng = np.random.default_rng(seed)
    width = tower.class_token.shape[-1]
    *channels, massive, massive_too = rng.choice(width, _CHANNELS + 2, replace=False).tolist()
    with torch.no_grad():
        for block in cast("list[Block]", list(tower.blocks)):
            for norm, layer in ((block.norm_1, block.attention.qkv), (block.norm_2, block.fc1)):
                gains = torch.from_numpy(rng.uniform(*_GAIN, len(channels)).astype(np.float32))
                norm.weight[channels] *= gains
                layer.weight[:, channels] /= gains**_COMPENSATED
            units = rng.choice(len(block.fc1.weight), _HIDDEN_UNITS, replace=False).tolist()
            block.fc1.weight[units] *= _HIDDEN_GAIN
            block.fc2.weight[:, units] /= _HIDDEN_GAIN**_COMPENSATED
        tokens = rng.choice(tower.positions.shape[1] - 1, _TOKENS, replace=False) + 1
        for channel, sign in ((massive, 1), (massive_too, -1)):
            tower.positions[0, tokens, channel] = sign * _MASSIVE
            if isinstance(tower.input_norm, nn.LayerNorm):  # which would make every token's norm the same
                tower.input_norm.weight[channel] *= _MASSIVE / np.sqrt(width / 2)
