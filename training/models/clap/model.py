"""LAION-CLAP's audio and text towers, loaded from a folder in the layout of `transformers`.

An independent implementation from the published papers (docs/method.md, CLIP and CLAP), compatible with the weights.
The audio tower, HTSAT, is a Swin transformer over a log-mel picture; the text tower is RoBERTa.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.training.models.clap.config import ClapConfig
from ovavel.training.models.clap.published_names import clap_entries
from ovavel.training.models.folder import load_entries
from ovavel.training.models.unit import unit_norm

__all__ = ["clap_tower", "load_clap"]

# B batch, N tokens of a window, W width, H heads, R rows and columns of patches, D embedding size

MEL_FRAMES, MEL_BINS = 1001, 64
_SIDE = 256
"""The log-mel picture of 1024 frames, cut into four pieces that lie one below the other, is a square of this side."""
_MASKED = -100.0
"""Added to the scores of tokens that lie beside each other only because the picture was rolled."""
_MODEL = "CLAP"


class _Projection(nn.Module):
    """Two linear layers into the common space, (B, W) → (B, D) of unit norm."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, size)
        self.fc2 = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return unit_norm(self.fc2(torch.relu(self.fc1(x))))


class _Attention(nn.Module):
    """Multi-head self-attention with something added to its scores, (B, N, W) → (B, N, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `bias` is of the scores (B or 1, H or 1, N, N), `mask` (M, 1, N, N) of each M sequences in turn."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias
        if mask is not None:
            scores = (scores.unflatten(0, (-1, len(mask))) + mask).flatten(0, 1)
        mixed = scores.softmax(dim=-1) @ v
        return cast("Tensor", self.out(mixed.transpose(1, 2).flatten(2)))


class _WindowBlock(nn.Module):
    """Pre-norm transformer block whose tokens attend within windows, (B, R, R, W) → (B, R, R, W)."""

    mask: Tensor | None

    def __init__(self, width: int, heads: int, side: int, *, window: int, shift: int, eps: float) -> None:
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm_1 = nn.LayerNorm(width, eps=eps)
        self.attention = _Attention(width, heads)
        self.bias = nn.Parameter(torch.zeros(1, heads, window**2, window**2))
        """By the distance of two tokens; published as a table of distances."""
        self.norm_2 = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        # Computed on the CPU also where the parameters have no storage yet.
        self.mask = _shift_mask(side, window, shift) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        rows, window = self.side // self.window, self.window
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.reshape(-1, rows, window, rows, window, x.shape[-1]).transpose(2, 3).reshape(-1, window**2, x.shape[-1])
        mask = self.mask if self.mask is None else self.mask.to(x.device, x.dtype)
        x = x + self.attention(self.norm_1(x), self.bias, mask)
        x = x + self.fc2(F.gelu(self.fc1(self.norm_2(x))))
        x = x.reshape(-1, rows, rows, window, window, x.shape[-1]).transpose(2, 3)
        x = x.reshape(-1, self.side, self.side, x.shape[-1])
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class _Merge(nn.Module):
    """Joins each four neighbours, (B, R, R, W) → (B, R / 2, R / 2, 2 W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=1e-5)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        half, width = x.shape[1] // 2, x.shape[-1]
        # (B, row, its half, column, its half, W): first the rows of a column, then the next column
        x = x.reshape(-1, half, 2, half, 2, width).permute(0, 1, 3, 4, 2, 5).reshape(-1, half, half, 4 * width)
        return cast("Tensor", self.reduction(self.norm(x)))


class AudioTower(nn.Module):
    """Encoder of log-mel pictures."""

    stretch: Tensor

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        audio = config.audio_config
        self.gain = nn.Parameter(torch.ones(MEL_BINS))
        self.offset = nn.Parameter(torch.zeros(MEL_BINS))
        """Of each mel bin; published as a batch normalization."""
        width, side = audio.patch_embeds_hidden_size, _SIDE // audio.patch_size
        self.stem = nn.Conv2d(1, width, kernel_size=audio.patch_size, stride=audio.patch_size)
        self.stem_norm = nn.LayerNorm(width, eps=1e-5)
        stages: list[nn.Module] = []
        for number, (blocks, heads) in enumerate(zip(audio.depths, audio.num_attention_heads, strict=True)):
            if number:
                stages.append(_Merge(width))
                width, side = 2 * width, side // 2
            window = min(audio.window_size, side)
            for block in range(blocks):
                shift = window // 2 if block % 2 and window < side else 0
                stages.append(_WindowBlock(width, heads, side, window=window, shift=shift, eps=audio.layer_norm_eps))
        self.stages = nn.ModuleList(stages)
        self.output_norm = nn.LayerNorm(width, eps=1e-5)
        self.projection = _Projection(width, config.projection_dim)
        self.stretch = _stretch()

    def forward(self, log_mels: Tensor) -> Tensor:
        """Encode (B, 1, 1001, 64), prepared as in docs/method.md, CLIP and CLAP → (B, D) of unit norm."""
        x = log_mels.squeeze(1) * self.gain + self.offset
        x = self.stretch.to(x.device, x.dtype) @ x  # (B, 1024, 64)
        x = x.reshape(-1, 4, _SIDE, MEL_BINS).transpose(2, 3).reshape(-1, 1, _SIDE, _SIDE)
        x = self.stem_norm(self.stem(x).permute(0, 2, 3, 1))  # (B, R, R, W)
        for stage in self.stages:
            x = stage(x)
        return cast("Tensor", self.projection(self.output_norm(x).mean(dim=(1, 2))))


class _TextBlock(nn.Module):
    """Post-norm transformer block, (B, N, W) → (B, N, W)."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.norm_2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm_1(x + self.attention(x, bias))
        return cast("Tensor", self.norm_2(x + self.fc2(F.gelu(self.fc1(x)))))


class TextTower(nn.Module):
    """Encoder of token ids that are padded on the right. The first token, the start token, becomes the embedding."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        text = config.text_config
        width, self.padding = text.hidden_size, text.pad_token_id
        self.embedding = nn.Parameter(torch.zeros(text.vocab_size, width))
        self.positions = nn.Parameter(torch.zeros(text.max_position_embeddings, width))
        """Of the first token at the row behind that of padding."""
        self.kind = nn.Parameter(torch.zeros(1, width))
        """Added to every token; RoBERTa knows one kind of them."""
        self.input_norm = nn.LayerNorm(width, eps=text.layer_norm_eps)
        self.blocks = nn.ModuleList(
            _TextBlock(width, text.num_attention_heads, text.layer_norm_eps) for _ in range(text.num_hidden_layers)
        )
        self.pooler = nn.Linear(width, width)
        self.projection = _Projection(width, config.projection_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode (B, L) int64 → (B, D) of unit norm."""
        positions = self.positions[self.padding + 1 : self.padding + 1 + tokens.shape[1]]
        x = self.input_norm(F.embedding(tokens, self.embedding) + self.kind + positions)
        bias = (tokens == self.padding).to(x.dtype)[:, None, None, :] * -1e9
        for block in self.blocks:
            x = block(x, bias)
        return cast("Tensor", self.projection(torch.tanh(self.pooler(x[:, 0]))))


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Return (windows, 1, N, N): what is added to the scores of each window of a rolled picture."""
    with torch.device("cpu"):
        # After rolling, rows and columns come from three stretches; tokens of one window see only their own.
        stretch = torch.zeros(side)
        stretch[side - window : side - shift] = 1
        stretch[side - shift :] = 2
        of = (3 * stretch[:, None] + stretch[None]).reshape(side // window, window, side // window, window)
        of = of.transpose(1, 2).reshape(-1, window**2)
        return torch.where(of[:, None] == of[:, :, None], 0.0, _MASKED)[:, None]


def _stretch() -> Tensor:
    """Return (1024, 1001): bicubic interpolation along time, whose first and last frames stay in place."""
    with torch.device("cpu"):
        frames = torch.eye(MEL_FRAMES)[None, None]
        rows = F.interpolate(frames, (4 * _SIDE, MEL_FRAMES), mode="bicubic", align_corners=True)
        return rows[0, 0]


def clap_tower(config: ClapConfig, sense: Literal["audio", "text"]) -> nn.Module:
    """Return one tower without weights."""
    return AudioTower(config) if sense == "audio" else TextTower(config)


def load_clap(path: Path, config: ClapConfig, sense: Literal["audio", "text"]) -> nn.Module:
    """Load one tower from the file of the weights, frozen and in evaluation mode.

    Raises:
        CheckpointError: the file is damaged, or its entries are not those of this model.
    """
    with torch.device("meta"):
        tower = clap_tower(config, sense)
    entries = clap_entries(sense, tower.state_dict())
    prefixes = (f"{sense}_model.", f"{sense}_projection.")
    return load_entries(tower, entries, path, prefixes=prefixes, model=_MODEL)
