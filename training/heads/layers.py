"""Building blocks of temporal heads (docs/method.md, Temporal head).

Shapes: B batch, T segments, D embedding size, K size of queries, keys and values, F inner size of a feed-forward layer.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Dropout", "FeedForward", "SegmentLinear", "TemporalBlock"]


class Dropout(nn.Module):
    """Dropout with an optional given mask, so that several processes together drop what a single one would."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.mask: Tensor | None = None
        """Shape of the input: 0 where values are dropped, 1 / (1 - share) elsewhere. None: drawn at each call."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout, in training mode only."""
        if not self.training or not self.share:
            return x
        return F.dropout(x, self.share) if self.mask is None else x * self.mask


class Attention(nn.Module):
    """Single-head attention from segments to the segments of `context`, (B, T, D) twice → (B, T, D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.q = nn.Linear(dim, hidden)
        self.k = nn.Linear(dim, hidden)
        self.v = nn.Linear(dim, hidden)
        self.o = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Take queries from `x`, keys and values from `context`."""
        q, k, v = self.q(x).unsqueeze(1), self.k(context).unsqueeze(1), self.v(context).unsqueeze(1)  # (B, 1, T, K)
        return cast("Tensor", self.o(F.scaled_dot_product_attention(q, k, v).squeeze(1)))


class FeedForward(nn.Module):
    """Feed-forward layer, (B, T, D) → (B, T, D), applied to each segment separately."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute W2 · dropout(relu(W1 x))."""
        return cast("Tensor", self.w_2(self.dropout(F.relu(self.w_1(x)))))


class TemporalBlock(nn.Module):
    """Post-norm block, (B, T, D) → (B, T, D); with `cross`, keys and values come from the other modality."""

    def __init__(self, dim: int, hidden: int, ffn: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.cross = cross
        self.self_attn = Attention(dim, hidden)
        self.ffn = FeedForward(dim, ffn, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Map (B, T, D) of this modality and of the other → (B, T, D)."""
        x = self.norm1(x + self.self_attn(x, other if self.cross else x))
        return cast("Tensor", self.norm2(x + self.ffn(x)))


class SegmentLinear(nn.Module):
    """Linear layer in place of a block, (B, T, D) → (B, T, D), applied to each segment separately."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, _other: Tensor) -> Tensor:
        """Accept the same arguments as a block; the other modality is ignored."""
        return cast("Tensor", self.linear(x))
