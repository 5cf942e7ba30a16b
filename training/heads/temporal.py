"""The temporal head: adds ten seconds of context to the embeddings of each second (docs/method.md, Temporal head)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self, cast, get_args

import torch
from torch import Tensor, nn

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.heads.layers import SegmentLinear, TemporalBlock
from ovavel.training.models.checkpoint import check_entries, read_checkpoint, read_metadata, write_checkpoint
from ovavel.training.models.unit import unit_norm

__all__ = ["AUDIO_SCALE", "Decision", "HeadGraph", "HeadKind", "ScoreKind", "TemporalHead", "fuse", "min_max"]

# B batch, T segments, D embedding size, C classes with the background last

AUDIO_SCALE = 20.0
"""Norm of audio embeddings at the input of the published head's blocks; vision has norm 1."""

HeadKind = Literal["temporal", "linear", "cross-modal"]
"""Kind of block: attention among the segments of a modality; one matrix applied to each segment; attention of one
modality's segments to those of the other."""

ScoreKind = Literal["geometric", "prob-avg", "feature-avg"]
"""Value that is min-max scaled into scores: the geometric mean of both similarities; their arithmetic mean; the
similarity of the mean of both features."""

_FORMAT = "ovavel temporal head 1"
_UNUSED = re.compile(r"[av]_xa_blocks\.|[av]_sa_blocks\.\d+\.(loc_adj\.[wb]|self_attn\.alpha)$")
_STACKS: Mapping[HeadKind, str] = {"temporal": "sa_blocks", "linear": "linears", "cross-modal": "xa_blocks"}


class TemporalHead(nn.Module):
    """A stack of blocks for audio and another for vision. Without blocks it is the training-free head.

    The state dict of the kind "temporal" uses the names of the published head, without the entries that never affect
    the result.

    Many parameters: they are the hyperparameters that a checkpoint keeps by name.
    """

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
        super().__init__()
        if blocks < 0 or min(dim, hidden, ffn) < 1:
            raise UsageError(f"a head needs blocks ≥ 0 and positive sizes, not {(blocks, dim, hidden, ffn)}")
        if gate is None and learn_gate:
            raise UsageError("a learned gate needs a starting value: give it as `gate`")
        self.blocks, self.dim, self.hidden, self.ffn = blocks, dim, hidden, ffn
        self.kind, self.audio_scale, self.score = kind, audio_scale, score
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
        sizes = audio.shape[-1], vision.shape[-1]
        if self.blocks and sizes != (self.dim, self.dim):
            raise UsageError(
                f"a temporal head with blocks needs embeddings of one size for both senses, {self.dim} here, not "
                f"{sizes[0]} for audio and {sizes[1]} for vision; take the head without blocks"
            )
        a, v = audio * self.audio_scale, vision
        stacks = (cast("nn.ModuleList", self.get_submodule(f"{modality}_{_STACKS[self.kind]}")) for modality in "av")
        for audio_block, vision_block in zip(*stacks, strict=True):
            a, v = audio_block(a, v), vision_block(v, a)
        if self.gate is None:
            return a, v
        share = self.gate.clamp(0, 1)
        return audio + share[0] * (unit_norm(a) - audio), vision + share[1] * (unit_norm(v) - vision)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a head written by `save`, or a published one, alone or inside a full checkpoint.

        The sizes and the number of blocks are read from the file. The head is in evaluation mode.

        Raises:
            CheckpointError: not a head; the message names missing, extra or misshaped entries.
        """
        tensors, metadata = read_checkpoint(path), read_metadata(path)
        own = metadata.get("format") == _FORMAT
        found = dict(tensors) if own else _published_entries(tensors)
        spec = _read_spec(path, metadata, entries=len(found)) if own else _published_spec(path, found)
        make = partial(cls, **spec._asdict(), gate=1.0 if "gate" in found else None)
        try:
            with torch.device("meta"):
                expected = {name: tensor.shape for name, tensor in make().state_dict().items()}
        except UsageError as error:
            raise CheckpointError(f"{path} is not a temporal head: {error}") from error
        check_entries(path, found, expected, model=f"a {spec.kind} head of {spec.blocks} block(s)")
        head = make()
        head.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        return head.eval()

    def save(self, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file that `load` reads, atomically.

        Args:
            path: the file.
            notes: further metadata, such as the training recipe.

        Raises:
            OutputError: the file could not be written.
        """
        spec = _Spec(self.blocks, self.dim, self.hidden, self.ffn, self.kind, self.audio_scale, self.score)
        metadata = {"format": _FORMAT, **{name: str(value) for name, value in spec._asdict().items()}}
        write_checkpoint(path, self.state_dict(), {**(notes or {}), **metadata})


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

    def __init__(self, head: TemporalHead) -> None:
        super().__init__()
        self.head = head

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


class _Spec(NamedTuple):
    blocks: int
    dim: int
    hidden: int
    ffn: int
    kind: HeadKind = "temporal"
    audio_scale: float = AUDIO_SCALE
    score: ScoreKind = "geometric"


def _read_spec(path: str | Path, metadata: Mapping[str, str], *, entries: int) -> _Spec:
    """Read the settings that `save` stored; where there is no kind, the published one applies."""
    try:
        blocks, dim, hidden, ffn = (int(metadata[name]) for name in ("blocks", "dim", "hidden", "ffn"))
        audio_scale = float(metadata.get("audio_scale", AUDIO_SCALE))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not state the sizes of its head as numbers: {error}") from error
    kind, score = metadata.get("kind", "temporal"), metadata.get("score", "geometric")
    if kind not in get_args(HeadKind) or score not in get_args(ScoreKind):
        raise CheckpointError(
            f"{path} is a head of a kind unknown to this version of ovavel: {kind}, {score}; update ovavel"
        )
    if blocks > entries:
        raise CheckpointError(f"{path} claims {blocks} blocks but holds {entries} entries; fetch it again")
    return _Spec(blocks, dim, hidden, ffn, cast("HeadKind", kind), audio_scale, cast("ScoreKind", score))


def _published_entries(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the used entries of the head under their bare names; of a full checkpoint only its head."""
    prefix = "temporal_av_layer."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not _UNUSED.match(name)}


def _published_spec(path: str | Path, found: Mapping[str, Tensor]) -> _Spec:
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
    return _Spec(len(numbers), dim, hidden, ffn)
