"""The temporal head: adds ten seconds of context to the embeddings of each second (docs/method.md, Temporal head)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast, get_args

import torch
from torch import Tensor, nn

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.heads.base import AUDIO_SCALE, Head, Reach, ScoreKind
from ovavel.training.heads.layers import SegmentLinear, TemporalBlock
from ovavel.training.models.checkpoint import check_entries, read_checkpoint, read_metadata
from ovavel.training.models.unit import unit_norm

__all__ = ["AUDIO_SCALE", "HeadGraph", "HeadKind", "TemporalHead", "cross_modal", "fuse", "linear", "min_max"]

# B batch, T segments, D embedding size, C classes with the background last

HeadKind = Literal["temporal", "linear", "cross-modal"]
"""Kind of block: attention among the segments of a modality; one matrix applied to each segment; attention of one
modality's segments to those of the other."""

_SCORES = ("geometric", "prob-avg", "feature-avg")
_UNUSED = re.compile(r"[av]_xa_blocks\.|[av]_sa_blocks\.\d+\.(loc_adj\.[wb]|self_attn\.alpha)$")
_STACKS: Mapping[HeadKind, str] = {"temporal": "sa_blocks", "linear": "linears", "cross-modal": "xa_blocks"}


class TemporalHead(Head):
    """A stack of blocks for audio and another for vision. Without blocks it is the training-free head.

    The state dict of the kind "temporal" uses the names of the published head, without the entries that never affect
    the result.

    Many parameters: they are the hyperparameters that a checkpoint keeps by name.
    """

    name = "temporal"
    gate: Tensor | None

    def __init__(
        self,
        blocks: int = 1,
        dim: int = 1024,
        hidden: int = 256,
        ffn: int = 512,
        *,
        dropout: float = 0.1,
        kind: HeadKind = "temporal",
        gate: float | None = None,
        learn_gate: bool = False,
        audio_scale: float = AUDIO_SCALE,
        score: ScoreKind = "geometric",
    ) -> None:
        """Create a head with random weights.

        Args:
            blocks: blocks per modality; 0 leaves the embeddings unchanged.
            dim: embedding size D.
            hidden: size of queries, keys and values.
            ffn: inner size of the feed-forward layer.
            dropout: dropout of the feed-forward layer, in training mode only.
            kind: kind of block.
            gate: share of the blocks' output in the result, in [0, 1]; the rest is the original embedding, both of
                unit norm. None: the blocks' output alone, of any norm.
            learn_gate: learn the shares, one per modality, starting from `gate`.
            audio_scale: norm of audio at the input of the blocks.
            score: how `HeadGraph` scores with this head.

        Raises:
            UsageError: invalid size.
        """
        super().__init__(dim, audio_scale=audio_scale)
        if kind not in get_args(HeadKind) or score not in _SCORES:
            raise UsageError(f"there is no temporal head of the kind {kind!r} with the score {score!r}; update ovavel")
        if blocks < 0 or min(dim, hidden, ffn) < 1:
            raise UsageError(f"a head needs blocks ≥ 0 and positive sizes, not {(blocks, dim, hidden, ffn)}")
        if gate is None and learn_gate:
            raise UsageError("a learned gate needs a starting value: give it as `gate`")
        self.blocks, self.hidden, self.ffn, self.dropout = blocks, hidden, ffn, dropout
        self.kind, self.score = kind, score
        for modality in "av":
            stack = (
                SegmentLinear(dim)
                if kind == "linear"
                else TemporalBlock(dim, hidden, ffn, dropout, cross=kind == "cross-modal")
                for _ in range(blocks)
            )
            self.add_module(f"{modality}_{_STACKS[kind]}", nn.ModuleList(stack))
        shares = None if gate is None else torch.full((2,), float(gate))  # of audio and of vision
        if shares is not None and learn_gate:
            self.gate = nn.Parameter(shares)
        else:
            self.register_buffer("gate", shares)

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Map embeddings (B, T, D) of unit norm, audio and vision → features (B, T, D) of each.

        Raises:
            UsageError: there are blocks, and a sense has embeddings of another size; without blocks any will do.
        """
        if self.blocks:
            self.check_sizes(audio, vision)
        a, v = audio * self.audio_scale, vision
        stacks = (cast("nn.ModuleList", self.get_submodule(f"{modality}_{_STACKS[self.kind]}")) for modality in "av")
        for audio_block, vision_block in zip(*stacks, strict=True):
            a, v = audio_block(a, v), vision_block(v, a)
        if self.gate is None:
            return a, v
        share = self.gate.clamp(0, 1)
        return audio + share[0] * (unit_norm(a) - audio), vision + share[1] * (unit_norm(v) - vision)

    @property
    def reach(self) -> Reach:
        """The whole window, through attention; a matrix for each segment sees no other."""
        return Reach(0, 0) if self.kind == "linear" or not self.blocks else Reach(None, None)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make it again; shares of a gate are among the weights."""
        sizes = {"blocks": self.blocks, "hidden": self.hidden, "ffn": self.ffn, "dropout": self.dropout}
        gate = None if self.gate is None else 1.0
        return {**super().config(), **sizes, "kind": self.kind, "score": self.score, "gate": gate}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a temporal head written by `save`, or a published one, alone or inside a full checkpoint.

        The sizes and the number of blocks are read from the file. The head is in evaluation mode.

        Raises:
            CheckpointError: not such a head; the message names missing, extra or misshaped entries.
        """
        if read_metadata(path).get("format"):
            return super().load(path)
        found = _published_entries(read_checkpoint(path))
        blocks, dim, hidden, ffn = _published_sizes(path, found)
        make = partial(cls, blocks, dim, hidden, ffn)
        try:
            with torch.device("meta"):
                expected = {name: tensor.shape for name, tensor in make().state_dict().items()}
        except UsageError as error:
            raise CheckpointError(f"{path} is not a temporal head: {error}") from error
        check_entries(path, found, expected, model=f"a temporal head of {blocks} block(s)")
        head = make()
        head.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        return head.eval()


linear = partial(TemporalHead, kind="linear")
"""The paper's ablation: one matrix for each segment by itself in the place of a block."""

cross_modal = partial(TemporalHead, kind="cross-modal")
"""The paper's ablation: attention of a modality's segments to those of the other."""


class Decision(NamedTuple):
    """Output of a head for B clips of T segments."""

    audio_similarity: Tensor
    """(B, T, C) cosine similarities."""
    vision_similarity: Tensor
    """(B, T, C) cosine similarities."""
    score: Tensor
    """(B, T, C) fused, min-max scaled over the classes: the logits of training."""


class HeadGraph(nn.Module):
    """From embeddings to scores: the temporal head, the similarities to the texts, and their fusion.

    This is the content of `head.onnx`. B, T and C may differ between calls.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    @property
    def learned(self) -> bool:
        """Whether the head has learned how to fuse similarities."""
        return self.head.score == "learned"

    def forward(self, audio: Tensor, vision: Tensor, audio_text: Tensor, vision_text: Tensor) -> Decision:
        """Map audio and vision (B, T, D) and C texts for each, all of unit norm → similarities and scores."""
        audio, vision = self.head(audio, vision)
        return self.compare(audio, vision, audio_text, vision_text)

    def compare(self, audio: Tensor, vision: Tensor, audio_text: Tensor, vision_text: Tensor) -> Decision:
        """Compare the head's features (B, T, D) of audio and of vision with the texts (C, D) of each."""
        audio_similarity = unit_norm(audio) @ unit_norm(audio_text).T
        vision_similarity = unit_norm(vision) @ unit_norm(vision_text).T
        if self.head.score == "geometric":
            score = fuse(audio_similarity, vision_similarity)
        elif self.learned:
            score = self.head.fuse(audio_similarity, vision_similarity)
        elif self.head.score == "prob-avg":
            score = min_max((audio_similarity + vision_similarity) / 2)
        else:
            # An ablation that has a meaning only where both senses and their texts share one space.
            score = min_max(unit_norm((audio + vision) / 2) @ unit_norm((audio_text + vision_text) / 2).T)
        return Decision(audio_similarity, vision_similarity, score)


def fuse(audio_similarity: Tensor, vision_similarity: Tensor) -> Tensor:
    """Return the geometric mean of two similarities (…, C), min-max scaled over classes (docs/method.md, Decision)."""
    product = audio_similarity * vision_similarity
    positive = product > 0
    # The square root of max(product, 0), without its infinite gradient at 0.
    return min_max(torch.where(positive, torch.where(positive, product, 1.0).sqrt(), 0.0))


def min_max(values: Tensor) -> Tensor:
    """Scale (…, C) → (…, C) in [0, 1]: `(x - min) / (max - min + 1e-8)` over the classes."""
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    # The same as that formula, bit for bit. The ONNX exporter would treat an addend of 1e-8 as zero and drop it, and
    # equal values would then give 0 / 0.
    scale = 2.0**10
    return (values - low) * scale / ((high - low) * scale + 1e-8 * scale)


def _published_entries(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the used entries of the head under their bare names; of a full checkpoint only its head."""
    prefix = "temporal_av_layer."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not _UNUSED.match(name)}


def _published_sizes(path: str | Path, found: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """Return blocks, D, K and F."""
    numbers = {match[1] for name in found if (match := re.match(r"[av]_sa_blocks\.(\d+)\.", name))}
    if not numbers:
        raise CheckpointError(
            f"{path} is not a temporal head: it has no entries a_sa_blocks.* or v_sa_blocks.*, bare or under "
            "temporal_av_layer.*"
        )
    shapes = []
    for name in ("a_sa_blocks.0.self_attn.q.weight", "a_sa_blocks.0.ffn.w_1.weight"):
        if name not in found or found[name].ndim != 2:
            raise CheckpointError(f"{path} is not a temporal head: it has no matrix {name}")
        shapes.append(found[name].shape)
    (hidden, dim), (ffn, _) = shapes
    return len(numbers), dim, hidden, ffn
