"""Building blocks of heads (docs/method.md, Temporal head).

Shapes: B batch, T segments, D embedding size, K size of queries, keys and values, F inner size of a feed-forward layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.runtime.errors import UsageError

__all__ = ["Draw", "Dropout", "MultiHeadAttention", "SegmentLinear", "TemporalBlock", "TransformerLayer"]


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Source of the dropout masks of a training step, so that several processes together drop what one would."""

    random: torch.Generator
    clips: int
    """Clips of the step, over all processes together: masks are drawn for all of them."""
    mine: slice
    """Those of this process."""


class Dropout(nn.Module):
    """Dropout of values (B, …) with an optional given source of its masks."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.draw: Draw | None = None
        """None: PyTorch's global generator."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout, in training mode only."""
        if not self.training or not self.share:
            return x
        if self.draw is None:
            return F.dropout(x, self.share)
        keep = torch.rand((self.draw.clips, *x.shape[1:]), generator=self.draw.random, device=x.device) >= self.share
        return x * (keep[self.draw.mine] / (1 - self.share))


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


class MultiHeadAttention(nn.Module):
    """Attention of (…, T, D) to `context` (…, T', D) → (…, T, D); biases everywhere."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise UsageError(f"{heads} heads of attention cannot share embeddings of size {dim}: it must be a multiple")
        self.heads, self.size = heads, dim // heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, far: Tensor | None = None) -> Tensor:
        """`x` asks, `context` answers, but for pairs that are `far`, (T, T') bool."""
        q, k, v = (
            each.unflatten(-1, (self.heads, self.size)).transpose(-3, -2)  # (…, H, T, K)
            for each in (self.q(x), self.k(context), self.v(context))
        )
        scores = (q / math.sqrt(self.size)) @ k.transpose(-1, -2)
        if far is not None:
            scores = scores.masked_fill(far, -math.inf)
        answer = self.dropout(scores.softmax(dim=-1)) @ v
        return cast("Tensor", self.o(answer.transpose(-3, -2).flatten(-2)))


class TransformerLayer(nn.Module):
    """Attention and a feed-forward part, each with a residual and a LayerNorm: (…, T, D), (…, T', D) → (…, T, D).

    Post-norm, the sums are normalized. With `pre_norm`, what enters each part is, and of attention only the query.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn: int,
        dropout: float,
        *,
        attention_dropout: float = 0.1,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = MultiHeadAttention(dim, heads, attention_dropout)
        self.ffn = FeedForward(dim, ffn, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, far: Tensor | None = None) -> Tensor:
        """`x` asks, `context` answers, but for pairs that are `far`, (T, T') bool."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.norm1(x), context, far))
            return cast("Tensor", x + self.dropout(self.ffn(self.norm2(x))))
        x = self.norm1(x + self.dropout(self.attention(x, context, far)))
        return cast("Tensor", self.norm2(x + self.dropout(self.ffn(x))))
