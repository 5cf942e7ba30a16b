"""The temporal head: what ten seconds of context add to one second's embeddings (docs/method.md, Temporal head)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.checkpoint import check_entries, read_checkpoint, read_metadata, write_checkpoint
from ovavel.training.unit import unit_norm

__all__ = ["AUDIO_SCALE", "Decision", "HeadGraph", "TemporalHead", "fuse"]

# B batch, T segments, D embedding size, K size of queries, keys and values, C classes with the background last

AUDIO_SCALE = 20.0
"""Norm with which audio embeddings enter the blocks; vision enters with norm 1."""

_FORMAT = "ovavel temporal head 1"
_UNUSED = re.compile(r"[av]_xa_blocks\.|[av]_sa_blocks\.\d+\.(loc_adj\.[wb]|self_attn\.alpha)$")


class SelfAttention(nn.Module):
    """One head of attention among the segments, (B, T, D) → (B, T, D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.q = nn.Linear(dim, hidden)
        self.k = nn.Linear(dim, hidden)
        self.v = nn.Linear(dim, hidden)
        self.o = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (linear(x).unsqueeze(1) for linear in (self.q, self.k, self.v))  # (B, 1, T, K)
        return cast("Tensor", self.o(F.scaled_dot_product_attention(q, k, v).squeeze(1)))


class FeedForward(nn.Module):
    """(B, T, D) → (B, T, D), each segment for itself."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.w_2(self.dropout(F.relu(self.w_1(x)))))


class TemporalBlock(nn.Module):
    """One post-norm block, (B, T, D) → (B, T, D)."""

    def __init__(self, dim: int, hidden: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, hidden)
        self.ffn = FeedForward(dim, ffn, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x))
        return cast("Tensor", self.norm2(x + self.ffn(x)))


class TemporalHead(nn.Module):
    """A stack of blocks for audio and another for vision. Without blocks it is the training-free head.

    Its state dict has the names of the published head, less the entries that never take part in the result.
    """

    def __init__(
        self, blocks: int = 1, dim: int = 1024, hidden: int = 256, ffn: int = 512, *, dropout: float = 0.1
    ) -> None:
        """Make a head with random weights.

        Args:
            blocks: blocks per modality; 0 leaves the embeddings as they are.
            dim: embedding size D.
            hidden: size of queries, keys and values.
            ffn: inner size of the feed-forward part.
            dropout: of the feed-forward part, in training mode only.

        Raises:
            UsageError: a size makes no sense.
        """
        super().__init__()
        if blocks < 0 or min(dim, hidden, ffn) < 1:
            raise UsageError(f"a head needs blocks ≥ 0 and positive sizes, not {(blocks, dim, hidden, ffn)}")
        self.blocks, self.dim, self.hidden, self.ffn = blocks, dim, hidden, ffn
        self.a_sa_blocks = nn.ModuleList(TemporalBlock(dim, hidden, ffn, dropout) for _ in range(blocks))
        self.v_sa_blocks = nn.ModuleList(TemporalBlock(dim, hidden, ffn, dropout) for _ in range(blocks))

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision."""
        audio = audio * AUDIO_SCALE
        for block in self.a_sa_blocks:
            audio = block(audio)
        for block in self.v_sa_blocks:
            vision = block(vision)
        return audio, vision

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a head that `save` wrote, or a published one, alone or inside a full checkpoint; in evaluation mode.

        The sizes and the number of blocks are read from the file.

        Raises:
            CheckpointError: not a head; the message names what is missing, extra or misshaped.
        """
        found = _head_entries(read_checkpoint(path))
        sizes = _sizes(path, found)
        try:
            with torch.device("meta"):
                expected = {name: tensor.shape for name, tensor in cls(*sizes).state_dict().items()}
        except UsageError as error:
            raise CheckpointError(f"{path} is not a temporal head: {error}") from error
        check_entries(path, found, expected, model=f"a temporal head of {sizes.blocks} block(s)")
        head = cls(*sizes)
        head.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        return head.eval()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that `load` reads back, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        sizes = _Sizes(self.blocks, self.dim, self.hidden, self.ffn)
        metadata = {"format": _FORMAT, **{name: str(size) for name, size in sizes._asdict().items()}}
        write_checkpoint(path, self.state_dict(), metadata)


class Decision(NamedTuple):
    """What a head says of B clips of T segments."""

    audio_similarity: Tensor
    """(B, T, C) cosine similarities."""
    vision_similarity: Tensor
    """(B, T, C) cosine similarities."""
    score: Tensor
    """(B, T, C) fused, min-max scaled over the classes: the logits of training."""


class HeadGraph(nn.Module):
    """From embeddings to scores: the temporal head, the similarities to the texts, and their fusion.

    It is what `head.onnx` holds. B, T and C may differ from call to call.
    """

    def __init__(self, head: TemporalHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, audio: Tensor, vision: Tensor, text: Tensor) -> Decision:
        """(B, T, D), (B, T, D) and (C, D), all of unit norm → similarities and scores."""
        audio, vision = self.head(audio, vision)
        names = unit_norm(text).T
        audio_similarity = unit_norm(audio) @ names
        vision_similarity = unit_norm(vision) @ names
        return Decision(audio_similarity, vision_similarity, fuse(audio_similarity, vision_similarity))


def fuse(audio_similarity: Tensor, vision_similarity: Tensor) -> Tensor:
    """Geometric mean of two similarities (…, C), min-max scaled over the classes (docs/method.md, Decision)."""
    product = audio_similarity * vision_similarity
    positive = product > 0
    # The root of max(product, 0), without its infinite gradient at 0.
    fused = torch.where(positive, torch.where(positive, product, 1.0).sqrt(), 0.0)
    low, high = fused.amin(dim=-1, keepdim=True), fused.amax(dim=-1, keepdim=True)
    # (fused - low) / (high - low + 1e-8), bit for bit. The ONNX exporter takes an addend of 1e-8 for zero and drops it,
    # and then nothing in common would be 0 / 0.
    scale = 2.0**10
    return (fused - low) * scale / ((high - low) * scale + 1e-8 * scale)


class _Sizes(NamedTuple):
    blocks: int
    dim: int
    hidden: int
    ffn: int


def _head_entries(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of the head under their bare names, less the unused ones; of a full checkpoint only its head."""
    prefix = "temporal_av_layer."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not _UNUSED.match(name)}


def _sizes(path: str | Path, found: Mapping[str, Tensor]) -> _Sizes:
    numbers = {match[1] for name in found if (match := re.match(r"[av]_sa_blocks\.(\d+)\.", name))}
    if numbers:
        shapes = []
        for name in ("a_sa_blocks.0.self_attn.q.weight", "a_sa_blocks.0.ffn.w_1.weight"):
            if name not in found or found[name].ndim != 2:
                raise CheckpointError(f"{path} is not a temporal head: it has no matrix {name}")
            shapes.append(found[name].shape)
        (hidden, dim), (ffn, _) = shapes
        return _Sizes(len(numbers), dim, hidden, ffn)
    metadata = read_metadata(path)
    if metadata.get("format") == _FORMAT and not found and metadata.get("blocks") == "0":
        try:
            return _Sizes(*(int(metadata[name]) for name in _Sizes._fields))
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} does not say the sizes of its head in whole numbers: {error}") from error
    raise CheckpointError(
        f"{path} is not a temporal head: it has no entries a_sa_blocks.* or v_sa_blocks.*, bare or under "
        "temporal_av_layer.*"
    )
