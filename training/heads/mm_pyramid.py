"""`mm-pyramid`: attention and convolution over nearby seconds, wider with each level (Yu et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.runtime.errors import UsageError
from ovavel.training.heads.base import AUDIO_SCALE, Head, Reach
from ovavel.training.heads.layers import TransformerLayer

__all__ = ["MMPyramidHead"]

_HEADS = 8
_MOST_LEVELS = 4


class MMPyramidHead(Head):
    """Levels one upon the other; level i sees segments up to 2^i away. Each segment then weighs its levels."""

    name = "mm-pyramid"

    def __init__(
        self,
        dim: int = 1024,
        *,
        levels: int = 1,
        ffn: int = 2014,
        dropout: float = 0.2,
        audio_scale: float = AUDIO_SCALE,
    ) -> None:
        """Make a head with random weights.

        Args:
            dim: embedding size D, a multiple of 8.
            levels: from 1, as published for this benchmark, to 4, as in the original.
            ffn: inner size of the feed-forward parts; 2014 is no misprint.
            dropout: in training mode only.
            audio_scale: norm with which audio enters.

        Raises:
            UsageError: one of them is out of range.
        """
        super().__init__(dim, audio_scale=audio_scale)
        if levels not in range(1, _MOST_LEVELS + 1):
            raise UsageError(f"a pyramid has from 1 to {_MOST_LEVELS} levels, not {levels!r}")
        self.ffn, self.dropout = ffn, dropout
        self.levels = nn.ModuleList(_Level(dim, ffn, dropout, dilation=2**level) for level in range(levels))
        self.audio, self.vision = (_LevelFusion(dim, ffn, dropout) for _ in range(2))

    @property
    def reach(self) -> Reach:
        """Twice the dilation at each level: attention, then a convolution."""
        reach = sum(2 * 2**level for level in range(len(self.levels)))
        return Reach(reach, reach)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {**super().config(), "levels": len(self.levels), "ffn": self.ffn, "dropout": self.dropout}

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision."""
        self.check_sizes(audio, vision)
        found = [(audio * self.audio_scale, vision)]
        for level in self.levels:
            found.append(level(*found[-1]))
        heard, seen = (torch.stack(levels, dim=2) for levels in zip(*found[1:], strict=True))
        return self.audio(heard), self.vision(seen)


class _Level(nn.Module):
    """Self-attention, attention to the other sense by one layer for both ways, two gates, and a dilated convolution."""

    def __init__(self, dim: int, ffn: int, dropout: float, *, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.audio, self.vision, self.cross = (_layer(dim, ffn, dropout) for _ in range(3))
        self.audio_gates, self.vision_gates = (_Gates(dim) for _ in range(2))
        self.audio_convolution, self.vision_convolution = (_Convolution(dim, dilation) for _ in range(2))

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) twice → (B, T, D) twice."""
        place = torch.arange(audio.shape[1], device=audio.device)
        far = (place[:, None] - place).abs() > self.dilation
        a = self.audio_gates(self.audio(audio, audio, far), self.cross(audio, vision, far))
        v = self.vision_gates(self.vision(vision, vision, far), self.cross(vision, audio, far))
        return self.audio_convolution(a), self.vision_convolution(v)


class _Gates(nn.Module):
    """What of each sense's own view and of the other's passes: (B, T, D) twice → (B, T, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.own, self.cross = (nn.Linear(2 * dim, dim) for _ in range(2))

    def forward(self, own: Tensor, cross: Tensor) -> Tensor:
        """Weigh each value of both."""
        both = torch.cat([own, cross], dim=-1)
        gated: Tensor = self.own(both).sigmoid() * own + self.cross(both).sigmoid() * cross
        return gated


class _Convolution(nn.Module):
    """Three segments, `dilation` apart, and a residual: (B, T, D) → (B, T, D)."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(dim, dim, 3, dilation=dilation, padding=dilation)
        self.point = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pad with zeros at both ends."""
        found: Tensor = self.point(F.relu(self.wide(x.transpose(1, 2)))).transpose(1, 2)
        return F.relu(found + x)


class _LevelFusion(nn.Module):
    """Each segment by itself: its levels attend to each other, then add up by weight. (B, T, L, D) → (B, T, D)."""

    def __init__(self, dim: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.layer = _layer(dim, ffn, dropout)
        self.weight = nn.Linear(dim, 1)

    def forward(self, levels: Tensor) -> Tensor:
        """Weigh the levels."""
        levels = self.layer(levels, levels)
        fused: Tensor = (self.weight(levels).sigmoid() * levels).sum(dim=2)
        return fused


def _layer(dim: int, ffn: int, dropout: float) -> TransformerLayer:
    return TransformerLayer(dim, _HEADS, ffn, dropout, pre_norm=True)
