"""`complex`: fuses the similarities of another head as one complex number for each second and class.

Shapes: B batch, T segments, D embedding size, C classes with the background last, K channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.runtime.errors import UsageError
from ovavel.training.heads.base import Head, Reach, make_head
from ovavel.training.heads.temporal import min_max

__all__ = ["ComplexConvolution", "ComplexHead"]

_KERNEL, _CHANNELS, _CONVOLUTIONS = 5, 32, 4
_ALIKE = 1e-5


class ComplexHead(Head):
    """Convolutions over time of vision + i · audio, the same for every class, on top of another head's similarities."""

    name = "complex"
    score = "learned"

    def __init__(self, trunk: Head | Mapping[str, Any], *, dim: int | None = None, train_trunk: bool = False) -> None:
        """Make a head with random convolutions.

        Args:
            trunk: the head whose similarities are fused; or its kind and configuration, as `config` gives them.
            dim: embedding size D, which must be the trunk's.
            train_trunk: train it as well; otherwise it stays unchanged.

        Raises:
            UsageError: the trunk is for embeddings of another size, or does not score by the geometric mean.
        """
        if not isinstance(trunk, Head):
            trunk = make_head(trunk["head"], **trunk["config"])
        super().__init__(trunk.dim, audio_scale=trunk.audio_scale)
        if dim not in (None, trunk.dim):
            raise UsageError(f"the trunk is for embeddings of size {trunk.dim}, not {dim}")
        if trunk.score != "geometric":
            raise UsageError(f"a head that scores by {trunk.score} cannot be the trunk of a complex head")
        self.blocks, self.train_trunk = trunk.blocks, train_trunk
        self.trunk = trunk.requires_grad_(train_trunk)
        sizes = [1] + [_CHANNELS] * _CONVOLUTIONS
        self.convolutions = nn.ModuleList(
            ComplexConvolution(before, after, _KERNEL) for before, after in pairwise(sizes)
        )
        # Real parts, then imaginary parts: a norm of 2K channels normalizes each for itself.
        self.norms = nn.ModuleList(nn.BatchNorm2d(2 * _CHANNELS) for _ in range(_CONVOLUTIONS))
        self.last = ComplexConvolution(_CHANNELS, 1, 1)

    @property
    def reach(self) -> Reach:
        """Two seconds for each convolution, on either side, around what the trunk sees."""
        more = _CONVOLUTIONS * (_KERNEL // 2)
        before, after = (None if seconds is None else seconds + more for seconds in self.trunk.reach)
        return Reach(before, after)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {
            "trunk": {"head": self.trunk.name, "config": self.trunk.config()},
            "train_trunk": self.train_trunk,
        }

    def train(self, mode: bool = True) -> Self:
        """A trunk that is not trained drops nothing, either."""
        super().train(mode)
        self.trunk.train(mode and self.train_trunk)
        return self

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → the trunk's features (B, T, D) of audio and of vision."""
        features: tuple[Tensor, Tensor] = self.trunk(audio, vision)
        return features

    def fuse(self, audio_similarity: Tensor, vision_similarity: Tensor) -> Tensor:
        """(B, T, C) cosine similarities, twice → (B, T, C) scores in [0, 1]: |Z|, min-max scaled over the classes."""
        x = torch.stack([vision_similarity, audio_similarity], dim=1)  # (B, 2, T, C)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        power = self.last(x).square().sum(dim=1)  # (B, T, C)
        # The root without its infinite gradient at 0.
        size = torch.where(power > 0, torch.where(power > 0, power, 1.0).sqrt(), 0.0)
        low, high = size.amin(dim=-1, keepdim=True), size.amax(dim=-1, keepdim=True)
        # Classes that differ by rounding alone, as they do without any text, are alike: they score 0.
        return min_max(torch.where(high - low > _ALIKE * high, size, 0.0))


class ComplexConvolution(nn.Module):
    """A convolution of complex numbers over time by a real one: (B, 2K, T, C) → (B, 2K', T, C), real parts first.

    Each class by itself. A kernel of one class over all of them is much faster than as many clips of one class.
    """

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.real, self.imaginary = (nn.Conv1d(channels, out, kernel) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(R + iI)(x + iy) = Rx − Iy + i(Ry + Ix), and the bias of each part."""
        real, imaginary = self.real.weight, self.imaginary.weight
        weight = torch.cat([torch.cat([real, -imaginary], dim=1), torch.cat([imaginary, real], dim=1)])
        bias = torch.cat([each.bias for each in (self.real, self.imaginary) if each.bias is not None])
        return F.conv2d(x, weight.unsqueeze(-1), bias, padding=(self.padding, 0))
