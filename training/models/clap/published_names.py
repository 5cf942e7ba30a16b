"""Entry names of published CLAP weights, and what our parameters are made from them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ovavel.training.models.folder import Entry, joined, same

__all__ = ["clap_entries"]

_BLOCK = re.compile(r"(?:stages|blocks)\.(\d+)\.(.+)")
_TRUNKS = {"audio": "audio_model.audio_encoder", "text": "text_model"}
_NAMES = {
    "audio": {
        "stem": "audio_model.audio_encoder.patch_embed.proj",
        "stem_norm": "audio_model.audio_encoder.patch_embed.norm",
        "output_norm": "audio_model.audio_encoder.norm",
        "projection.fc1": "audio_projection.linear1",
        "projection.fc2": "audio_projection.linear2",
    },
    "text": {
        "embedding": "text_model.embeddings.word_embeddings.weight",
        "positions": "text_model.embeddings.position_embeddings.weight",
        "kind": "text_model.embeddings.token_type_embeddings.weight",
        "input_norm": "text_model.embeddings.LayerNorm",
        "pooler": "text_model.pooler.dense",
        "projection.fc1": "text_projection.linear1",
        "projection.fc2": "text_projection.linear2",
    },
}
_PARTS = {
    "audio": {
        "norm_1": "layernorm_before",
        "norm_2": "layernorm_after",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "attention.out": "attention.output.dense",
    },
    "text": {
        "norm_1": "attention.output.LayerNorm",
        "norm_2": "output.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "attention.out": "attention.output.dense",
    },
}
_BATCH_NORM_EPS = 1e-5


def clap_entries(sense: Literal["audio", "text"], state: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Return what each entry of a tower's `state` dict is made from."""
    blocks = _numbered(state) if sense == "audio" else {}
    return {name: _entry(sense, name, tensor, blocks) for name, tensor in state.items()}


def _numbered(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the published place of each of the audio tower's stages, which are numbered through."""
    numbers = {int(match[1]) for name in state if (match := _BLOCK.fullmatch(name))}
    places, layer, block = {}, 0, 0
    for number in sorted(numbers):
        if f"stages.{number}.reduction.weight" in state:
            places[str(number)] = f"layers.{layer}.downsample"
            layer, block = layer + 1, 0
        else:
            places[str(number)] = f"layers.{layer}.blocks.{block}"
            block += 1
    return places


def _entry(sense: Literal["audio", "text"], name: str, ours: Tensor, blocks: Mapping[str, str]) -> Entry:
    trunk = _TRUNKS[sense]
    if name in ("gain", "offset"):
        return _of_batch_norm(f"{trunk}.batch_norm", name, ours)
    if match := _BLOCK.fullmatch(name):
        number, rest = match.groups()
        block = f"{trunk}.{blocks[number] if sense == 'audio' else f'encoder.layer.{number}'}"
        part, _, kind = rest.rpartition(".")
        if rest == "bias":
            return _of_table(f"{block}.attention.self.relative_position_bias_table", ours)
        if part == "attention.qkv":
            return joined([f"{block}.attention.self.{each}.{kind}" for each in ("query", "key", "value")], ours)
        return same(f"{block}.{_PARTS[sense].get(part, part)}.{kind}", ours)
    names = _NAMES[sense]
    if name in names:
        published = names[name]
    else:
        first, _, kind = name.rpartition(".")
        published = f"{names[first]}.{kind}"
    return Entry({published: tuple(ours.shape)}, lambda found: found)


def _of_batch_norm(norm: str, name: str, ours: Tensor) -> Entry:
    """Return the gain or the offset that the batch normalization amounts to, once it is trained."""
    shapes = {f"{norm}.{each}": tuple(ours.shape) for each in ("weight", "bias", "running_mean", "running_var")}

    def make(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        gain = weight / torch.sqrt(variance + _BATCH_NORM_EPS)
        return gain if name == "gain" else bias - mean * gain

    return Entry(shapes, make)


def _of_table(name: str, ours: Tensor) -> Entry:
    """Return the bias of each two tokens of a window, (1, H, N, N), from its table by their distance."""
    heads, window = ours.shape[1], math.isqrt(ours.shape[2])
    distances = 2 * window - 1

    def make(table: Tensor) -> Tensor:
        place = torch.arange(window**2)
        row, column = place // window, place % window
        down = row[:, None] - row[None] + window - 1
        right = column[:, None] - column[None] + window - 1
        return table[down * distances + right].permute(2, 0, 1)[None]

    return Entry({name: (distances**2, heads)}, make)
