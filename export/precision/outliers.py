"""Outliers of trained weights, added to random ones to measure the effect of quantization.

Random weights are too easy to quantize: their activations are nearly normally distributed. Trained transformers have a
few channels with LayerNorm gains tens of times those of others (Dettmers et al. 2022, "LLM.int8()"), a few hidden units
that respond far more strongly than others, and a few tokens whose residual is hundreds of times as large in one or two
channels (Sun et al. 2024, "Massive Activations in Large Language Models", section 2, including vision transformers).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.random import default_rng
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
"""Weights applied to a large channel are divided by its gain to this power: trained weights are smaller there, but the
channel still has more influence than others. At 1 the function would be unchanged."""


def plant_outliers(tower: nn.Module, seed: int = 0) -> None:
    """Change the weights of `tower` in place: large LayerNorm gains, large hidden units and massive tokens.

    Raises:
        TypeError: not a vision or audio encoder.
    """
    if not isinstance(tower, PatchTower):
        raise TypeError(f"outliers are for vision and audio encoders, not for {type(tower).__name__}")
    rng = default_rng(seed)
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
            if isinstance(tower.input_norm, nn.LayerNorm):  # it would equalise the norms of the tokens
                tower.input_norm.weight[channel] *= _MASSIVE / np.sqrt(width / 2)
