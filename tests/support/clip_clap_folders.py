"""Folders of small random CLIP and CLAP weights, in the layout of `transformers` but made without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from msgspec import convert
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers, processors

from ovavel.training.models.clap.config import ClapConfig
from ovavel.training.models.clap.model import clap_tower
from ovavel.training.models.clap.published_names import clap_entries
from ovavel.training.models.clip.model import ClipConfig, clip_entries
from ovavel.training.models.folder import Entry

TOWER = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP = {
    "model_type": "clip",
    "text_config": TOWER,  # with CLIP's own tokens
    "vision_config": {**TOWER, "patch_size": 32},
    "projection_dim": 24,
}
CLAP = {
    "model_type": "clap",
    "text_config": {**TOWER, "vocab_size": 262},
    "audio_config": {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "depths": [2, 2, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
    },
    "projection_dim": 24,
}
CARD = "---\ntags:\n- sound\nlicense: {licence}\n---\n# A model\n"
"""Model card."""


def clip_folder(folder: Path, *, licence: str | None = "mit") -> Path:
    """Write such a CLIP into `folder` and return it."""
    config = convert(CLIP, ClipConfig)
    entries = [clip_entries(config, sense) for sense in ("vision", "text")]
    return _write(folder, CLIP, entries, licence, seed=0)


def clap_folder(folder: Path, *, licence: str | None = "apache-2.0") -> Path:
    """Write such a CLAP into `folder` and return it."""
    config = convert(CLAP, ClapConfig)
    with torch.device("meta"):
        entries = [clap_entries(sense, clap_tower(config, sense).state_dict()) for sense in ("audio", "text")]
    _write(folder, CLAP, entries, licence, seed=1)
    roberta().save(str(folder / "tokenizer.json"))
    return folder


def roberta() -> tokenizers.Tokenizer:
    """Return a tokenizer like RoBERTa's, of bytes and few pairs of them."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *letters, "do", "dog"])}
    found = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[("d", "o"), ("do", "g")], unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    found.add_special_tokens(special)
    return found


def _write(
    folder: Path, config: Mapping[str, Any], towers: list[dict[str, Entry]], licence: str | None, *, seed: int
) -> Path:
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in {n: s for entries in towers for e in entries.values() for n, s in e.shapes.items()}.items():
        values = torch.randn(shape, generator=random)
        if len(shape) > 1:
            state[name] = values * (0.5 if "embedding" in name else 1 / shape[-1] ** 0.5)
        else:
            state[name] = 0.1 * values + (1.0 if name.endswith("weight") or "var" in name else 0.0)
    for name in state:
        if name.endswith("running_var"):
            state[name] = 400 * state[name].abs()  # decibels
        if name.endswith("running_mean"):
            state[name] -= 50
    folder.mkdir(parents=True)
    save_file({**state, "logit_scale": torch.tensor(2.6)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(CARD.format(licence=licence) if licence else "# A model\n")
    return folder
