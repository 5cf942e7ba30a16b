"""Entry names of the published ImageBind checkpoint (docs/method.md, Encoders)."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["modality_of", "published_name"]

# Own name → published name; `*` stands for the modality.
_NAMES = {
    "class_token": "modality_preprocessors.*.cls_token",
    "stem_norm": "modality_preprocessors.*.rgbt_stem.norm_layer",
    "embedding": "modality_preprocessors.*.token_embedding.weight",
    "input_norm": "modality_trunks.*.pre_transformer_layer.0",
}
_NAMES_OF: Mapping[str, Mapping[str, str]] = {
    "vision": {
        "stem": "modality_preprocessors.*.rgbt_stem.proj.1",
        "positions": "modality_preprocessors.*.pos_embedding_helper.pos_embed",
        "output_norm": "modality_heads.*.0",
        "projection": "modality_heads.*.2",
    },
    "audio": {
        "stem": "modality_preprocessors.*.rgbt_stem.proj",
        "positions": "modality_preprocessors.*.pos_embedding_helper.pos_embed",
        "output_norm": "modality_heads.*.0",
        "projection": "modality_heads.*.2",
    },
    "text": {
        "positions": "modality_preprocessors.*.pos_embed",
        "output_norm": "modality_heads.*.proj.0",
        "projection": "modality_heads.*.proj.1",
    },
}
_BLOCK_NAMES = {
    "attention.qkv.weight": "attn.in_proj_weight",
    "attention.qkv.bias": "attn.in_proj_bias",
    "attention.out.weight": "attn.out_proj.weight",
    "attention.out.bias": "attn.out_proj.bias",
    "attention.extra_key": "attn.bias_k",
    "attention.extra_value": "attn.bias_v",
    "fc1.weight": "mlp.fc1.weight",
    "fc1.bias": "mlp.fc1.bias",
    "fc2.weight": "mlp.fc2.weight",
    "fc2.bias": "mlp.fc2.bias",
}


def published_name(modality: str, name: str) -> str:
    """Return the published name of the entry `name` of a tower."""
    if name.startswith("blocks."):
        _, index, rest = name.split(".", 2)
        return f"modality_trunks.{modality}.blocks.{index}.{_BLOCK_NAMES.get(rest, rest)}"
    first, dot, rest = name.partition(".")
    published = _NAMES_OF[modality].get(first) or _NAMES[first]
    return published.replace("*", modality) + dot + rest


_ENTRY = re.compile(r"modality_(?:preprocessors|trunks|heads|postprocessors)\.(vision|audio|text|depth|thermal|imu)\.")


def modality_of(name: str) -> str | None:
    """Return which of the six published modalities an entry belongs to, or None."""
    match = _ENTRY.match(name)
    return match[1] if match else None
