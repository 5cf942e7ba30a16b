"""CLIP's vision and text towers, loaded from a folder in the layout of `transformers`.

The towers have ImageBind's form, with another activation and another epsilon; the preparation of frames and the
byte-pair encoding of texts are the same, too (docs/method.md, CLIP and CLAP).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta, Struct, field
from torch import Tensor, nn

from ovavel.training.models.folder import Entry, joined, load_entries, same
from ovavel.training.models.imagebind.model import (
    FRAME,
    VOCABULARY,
    Activation,
    PatchTower,
    TextTower,
    TowerConfig,
)

__all__ = ["ClipConfig", "clip_entries", "load_clip"]

_Size = Annotated[int, Meta(ge=1, le=2**20)]
_MODEL = "CLIP"


def quick_gelu(x: Tensor) -> Tensor:
    """Return x · sigmoid(1.702 x), the activation that CLIP was trained with in place of GELU."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Activation] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class _Tower(Struct, frozen=True, kw_only=True):
    """What both towers have in common."""

    hidden_size: _Size
    intermediate_size: _Size
    num_hidden_layers: _Size
    num_attention_heads: _Size
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: Annotated[float, Meta(gt=0, lt=1)] = 1e-5

    def __post_init__(self) -> None:
        if self.intermediate_size != 4 * self.hidden_size:
            raise ValueError("an intermediate_size other than four times the hidden_size")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("a hidden_size that num_attention_heads does not divide")

    @property
    def size(self) -> TowerConfig:
        return TowerConfig(width=self.hidden_size, blocks=self.num_hidden_layers, heads=self.num_attention_heads)


class TextSize(_Tower, frozen=True, kw_only=True):
    """The text tower."""

    hidden_size: _Size = 512
    intermediate_size: _Size = 2048
    num_hidden_layers: _Size = 12
    num_attention_heads: _Size = 8
    max_position_embeddings: Literal[77] = 77
    vocab_size: _Size = VOCABULARY


class VisionSize(_Tower, frozen=True, kw_only=True):
    """The vision tower."""

    hidden_size: _Size = 768
    intermediate_size: _Size = 3072
    num_hidden_layers: _Size = 12
    num_attention_heads: _Size = 12
    image_size: Literal[224] = 224
    num_channels: Literal[3] = 3
    patch_size: Annotated[int, Meta(ge=1, le=224)] = 32


class ClipConfig(Struct, frozen=True, kw_only=True):
    """Size of a CLIP model: the fields of its `config.json` that matter here, ViT-B/32's by default."""

    text_config: TextSize = field(default_factory=TextSize)
    vision_config: VisionSize = field(default_factory=VisionSize)
    projection_dim: _Size = 512
    """D."""


def clip_tower(config: ClipConfig, sense: Literal["vision", "text"]) -> PatchTower | TextTower:
    """Return one tower without weights: frames (B, 3, 224, 224) or tokens (B, 77) → (B, D) of unit norm."""
    tower = config.vision_config if sense == "vision" else config.text_config
    activation = _ACTIVATIONS[tower.hidden_act]
    if sense == "text":
        vocabulary = config.text_config.vocab_size
        return TextTower(tower.size, config.projection_dim, vocabulary, eps=tower.layer_norm_eps, activation=activation)
    patch = config.vision_config.patch_size
    stem = nn.Conv2d(FRAME[0], tower.hidden_size, kernel_size=patch, stride=patch, bias=False)
    tokens = (FRAME[1] // patch) ** 2
    return PatchTower(tower.size, config.projection_dim, stem, tokens, eps=tower.layer_norm_eps, activation=activation)


_NAMES = {
    "vision": {
        "class_token": "vision_model.embeddings.class_embedding",
        "stem.weight": "vision_model.embeddings.patch_embedding.weight",
        "positions": "vision_model.embeddings.position_embedding.weight",
        "input_norm": "vision_model.pre_layrnorm",
        "output_norm": "vision_model.post_layernorm",
        "projection": "visual_projection",
    },
    "text": {
        "embedding": "text_model.embeddings.token_embedding.weight",
        "positions": "text_model.embeddings.position_embedding.weight",
        "output_norm": "text_model.final_layer_norm",
        "projection": "text_projection",
    },
}
_BLOCK_NAMES = {"norm_1": "layer_norm1", "norm_2": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


def clip_entries(config: ClipConfig, sense: Literal["vision", "text"]) -> dict[str, Entry]:
    """Return what each entry of the tower's state dict is made from."""
    with torch.device("meta"):
        state = clip_tower(config, sense).state_dict()
    return {name: _entry(sense, name, tensor) for name, tensor in state.items()}


def _entry(sense: Literal["vision", "text"], name: str, ours: Tensor) -> Entry:
    if match := _BLOCK.fullmatch(name):
        number, part, kind = match.groups()
        block = f"{sense}_model.encoder.layers.{number}"
        if part == "attention.qkv":
            return joined([f"{block}.self_attn.{each}_proj.{kind}" for each in "qkv"], ours)
        part = "self_attn.out_proj" if part == "attention.out" else _BLOCK_NAMES[part]
        return same(f"{block}.{part}.{kind}", ours)
    names = _NAMES[sense]
    if name in names:
        return same(names[name], ours)
    first, _, kind = name.rpartition(".")
    return same(f"{names[first]}.{kind}", ours)


def load_clip(path: Path, config: ClipConfig, sense: Literal["vision", "text"]) -> nn.Module:
    """Load one tower from the file of the weights, frozen and in evaluation mode.

    Raises:
        CheckpointError: the file is damaged, or its entries are not those of this model.
    """
    with torch.device("meta"):
        tower = clip_tower(config, sense)
    prefixes = ("vision_model.", "visual_projection.") if sense == "vision" else ("text_model.", "text_projection.")
    return load_entries(tower, clip_entries(config, sense), path, prefixes=prefixes, model=_MODEL)
