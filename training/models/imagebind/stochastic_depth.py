"""Stochastic depth of an encoder: in training, residual branches are left out at random (Huang et al., ECCV 2016).

As in the published definition of ImageBind (Girdhar et al., CVPR 2023), whose audio encoder alone has it, at 0.1: the
rate grows linearly over the blocks, from 0 in the first to the whole rate in the last. Both branches of a block are
kept or left out independently of each other, for each sample; those that are kept are divided by the probability of
that, so that the mean stays. The published script of OV-AVEL trains with the whole model in training mode, so its
heads see sound with this noise.

Shapes: B samples, L blocks, N tokens, W width.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor, nn

from ovavel.training.models.imagebind.model import Block, PatchTower

__all__ = ["AUDIO_RATE", "StochasticDepth"]

AUDIO_RATE = 0.1
"""Rate of the last block of ImageBind's audio encoder."""
_BRANCHES = 2  # attention and MLP


class StochasticDepth:
    """Leaves out residual branches of a tower, but only within `applied`."""

    def __init__(self, tower: PatchTower, rate: float) -> None:
        """Hook into the blocks of `tower`; `rate`, below 1, is that of the last one."""
        self.rates: NDArray[np.float64] = np.linspace(0, rate, len(tower.blocks))
        """(L,): how often a branch of each block is left out."""
        self._factors: Tensor | None = None
        for number, block in enumerate(tower.blocks):
            assert isinstance(block, Block)
            for branch, last in enumerate((block.attention, block.fc2)):
                last.register_forward_hook(partial(self._scale, number, branch))

    def draw(self, key: str, samples: int) -> NDArray[np.float32]:
        """Return factors (B, L, 2) of both branches of each block: 0, or 1 / (1 - rate). The same `key` draws the same.

        `samples` is B.
        """
        random = default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16]))
        rates = self.rates[:, np.newaxis]
        kept = random.random((samples, len(rates), _BRANCHES)) >= rates
        return (kept / (1 - rates)).astype(np.float32)

    @contextlib.contextmanager
    def applied(self, factors: NDArray[np.float32]) -> Iterator[None]:
        """Multiply the branches of the next batch's B samples by `factors` (B, L, 2)."""
        self._factors = torch.from_numpy(factors)
        try:
            yield
        finally:
            self._factors = None

    def _scale(self, number: int, branch: int, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        """Scale a branch's result (B, N, W); None leaves it unchanged."""
        if self._factors is None:
            return None
        return output * self._factors[:, number, branch, None, None].to(output.device)
