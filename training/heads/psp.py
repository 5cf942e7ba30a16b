"""`psp`: each second takes over what the other sense has in the seconds that it goes with (Zhou et al. 2021)."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.training.heads.base import AUDIO_SCALE, Head
from ovavel.training.heads.layers import Dropout

__all__ = ["PSPHead", "pair_errors", "strong_shares"]

STRONG = 0.95
"""Share of a connection that is kept, in even shares: above 0.95 / T, which is the published 0.095 at T = 10."""

_EPSILON = 1e-8
_SCALE = 2.0**10


class PSPHead(Head):
    """Connections of vision and audio segments that are stronger than most, and the features they carry over."""

    name = "psp"

    def __init__(self, dim: int = 1024, *, dropout: float = 0.1, audio_scale: float = AUDIO_SCALE) -> None:
        super().__init__(dim, audio_scale=audio_scale)
        self.v1, self.v2, self.v_out, self.a1, self.a2, self.a_out = (nn.Linear(dim, dim, bias=False) for _ in range(6))
        for matrix in (self.v1, self.v2, self.v_out, self.a1, self.a2, self.a_out):
            nn.init.xavier_uniform_(matrix.weight)
        self.norm = nn.LayerNorm(dim, eps=1e-6)  # one for both senses
        self.dropout = Dropout(dropout)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {**super().config(), "dropout": self.dropout.share}

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision."""
        self.check_sizes(audio, vision)
        audio = audio * self.audio_scale
        v1, v2 = (self.dropout(F.relu(matrix(vision))) for matrix in (self.v1, self.v2))
        a1, a2 = (self.dropout(F.relu(matrix(audio))) for matrix in (self.a1, self.a2))
        connected = F.relu(v2 @ a1.transpose(1, 2) / math.sqrt(self.dim))  # (B, T, T), a row for each vision segment
        vision = vision + strong_shares(connected) @ a2
        audio = audio + strong_shares(connected.transpose(1, 2)) @ v1
        return self._finish(self.a_out(audio)), self._finish(self.v_out(vision))

    def _finish(self, x: Tensor) -> Tensor:
        finished: Tensor = self.norm(self.dropout(F.relu(x)))
        return finished


def strong_shares(connected: Tensor) -> Tensor:
    """(B, T, T) connections ≥ 0 → (B, T, T): each row's shares above 0.95 / T, made to sum to 1; the others are 0.

    A row without any connection stays 0.
    """
    shares = _shares(connected)
    # The mean is the even share 1 / T, without arithmetic on shapes, which engines do on the CPU.
    return _shares(shares.where(shares > STRONG * shares.mean(dim=-1, keepdim=True), 0.0))


def _shares(x: Tensor) -> Tensor:
    # x / (sum + 1e-8). The factor is for PyTorch's ONNX optimizer, which drops an addend of 1e-8.
    return x * _SCALE / (x.sum(dim=-1, keepdim=True) * _SCALE + _EPSILON * _SCALE)


def pair_errors(audio: Tensor, vision: Tensor, event: Tensor) -> Tensor:
    """Squared errors of the pair loss, whose mean over all segments is the published loss.

    Args:
        audio: (B, T, D) features of any norm.
        vision: (B, T, D) features of any norm.
        event: (B, T) whether a segment has an event; a clip without any has target 0 throughout.

    Returns:
        (B, T): of each segment's share in the clip's similarities above 0, against 1 / k in its k event segments and 0
        elsewhere.
    """
    similarity = F.relu(F.cosine_similarity(audio, vision, dim=-1))
    share = similarity / (similarity.sum(dim=-1, keepdim=True) + _EPSILON)
    target = event / event.sum(dim=-1, keepdim=True).clamp(min=1)
    return (share - target).square()
