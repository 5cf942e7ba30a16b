"""ImageBind's encoder of sound on half of its tokens: what its input holds twice is computed once.

A log-mel holds its second twice (docs/method.md, Waveform), and its patches are cut every tenth of a second: each but
the last ones in time has a twin ten columns later, which differs from it in its position alone. One token stands for
both: it has the mean of their positions, and counts twice as a key of attention. This is exact where the positions of
twins are equal. Those of trained weights are not, so what pooling costs has to be measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovavel.training.models.imagebind.model import PatchTower

__all__ = ["PooledTower"]

# B batch, N tokens, W width, K keys, D embedding size

_ROWS, _COLUMNS, _PERIOD = 12, 19, 10
"""Patches of a log-mel, (bins, time), and after how many columns they come back."""
_TWICE = _COLUMNS - _PERIOD
"""Columns that have a twin: the first ones."""
_FRAMES = 10 * (_PERIOD - 1) + 16
"""Frames that the patches of a period cover: 16 wide, every 10."""


class PooledTower(nn.Module):
    """The encoder of sound `tower`, with its weights, on 121 tokens in place of 229."""

    positions: Tensor
    key_bias: Tensor

    def __init__(self, tower: PatchTower) -> None:
        super().__init__()
        self.tower = tower
        positions = tower.positions.detach()
        patches = torch.unflatten(positions[:, 1:], 1, (_ROWS, _COLUMNS))
        twins = (patches[:, :, :_TWICE] + patches[:, :, _PERIOD:]) / 2
        kept = torch.cat((twins, patches[:, :, _TWICE:_PERIOD]), dim=2).flatten(1, 2)
        self.register_buffer("positions", torch.cat((positions[:, :1], kept), dim=1))
        counts = positions.new_ones(_ROWS, _PERIOD)
        counts[:, :_TWICE] = 2
        one = counts.new_ones(1)  # the class token; the extra key
        self.register_buffer("key_bias", torch.cat((one, counts.flatten(), one)).log()[None, None, None])

    def forward(self, log_mel: Tensor) -> Tensor:
        """Encode (B, 1, 128, 204), a second that is held twice → (B, D) of unit norm."""
        return self.tower.encode(log_mel.narrow(3, 0, _FRAMES), self.positions, self.key_bias)
