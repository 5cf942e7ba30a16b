"""`cmra`: each sense asks the other one, and itself, over the whole window (Xu et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ovavel.training.heads.base import AUDIO_SCALE, Head
from ovavel.training.heads.layers import TransformerLayer

__all__ = ["CMRAHead"]

_HEADS, _LAYERS = 4, 2


class CMRAHead(Head):
    """An encoder for each sense, and a decoder whose memory is the other sense's encoding and its own query."""

    name = "cmra"

    def __init__(
        self, dim: int = 1024, *, ffn: int = 2048, dropout: float = 0.1, audio_scale: float = AUDIO_SCALE
    ) -> None:
        super().__init__(dim, audio_scale=audio_scale)
        self.ffn, self.dropout = ffn, dropout
        self.audio = _Sense(dim, ffn, dropout)
        self.vision = _Sense(dim, ffn, dropout)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {**super().config(), "ffn": self.ffn, "dropout": self.dropout}

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision."""
        self.check_sizes(audio, vision)
        audio = audio * self.audio_scale
        return (
            self.audio.decode(audio, self.vision.encode(vision)),
            self.vision.decode(vision, self.audio.encode(audio)),
        )


class _Sense(nn.Module):
    def __init__(self, dim: int, ffn: int, dropout: float) -> None:
        super().__init__()
        layers = [TransformerLayer(dim, _HEADS, ffn, dropout, attention_dropout=dropout) for _ in range(_LAYERS + 1)]
        self.enter = nn.Linear(dim, dim)
        self.encoder = nn.ModuleList(layers[:_LAYERS])
        self.query = nn.Linear(dim, dim)
        self.decoder = layers[_LAYERS]

    def encode(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x = self.enter(x)
        for layer in self.encoder:
            x = layer(x, x)
        return x

    def decode(self, x: Tensor, other: Tensor) -> Tensor:
        """Ask the other sense's encoding (B, T, D) and itself, 2T segments in all."""
        query = self.query(x)
        decoded: Tensor = self.decoder(query, torch.cat([other, query], dim=1))
        return decoded
