"""CLIP's and CLAP's towers against those of `transformers`, with the same random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import convert
from support.clip_clap_folders import TOWER
from torch import nn

from ovavel.runtime.errors import CheckpointError, InputError
from ovavel.training.models.clap.config import ClapConfig
from ovavel.training.models.clap.model import clap_tower, load_clap
from ovavel.training.models.clap.published_names import clap_entries
from ovavel.training.models.clip.model import ClipConfig, clip_entries, load_clip
from ovavel.training.models.folder import convert_config, read_kind, weights_file

AWAY = 2e-5
SMALL_CLIP = {
    "text_config": {**TOWER, "vocab_size": 100, "eos_token_id": 99},
    "vision_config": {**TOWER, "patch_size": 32},
    "projection_dim": 24,
}
SMALL_CLAP = {
    "text_config": {**TOWER, "vocab_size": 100},
    "audio_config": {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [2, 2, 3, 1],
        "num_attention_heads": [1, 2, 4, 8],
    },
    "projection_dim": 24,
}
LARGER_CLAP = {  # larger_clap_general
    "audio_config": {"patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2]},
}


def spread(model: nn.Module, seed: int = 0) -> None:
    """Give every weight a value that matters: fresh models have many zeros, and ones in their normalisations."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=random) * (0.1 if tensor.ndim < 2 else 0.04)
                tensor.copy_(tensor.abs() + noise.abs() if tensor.ndim == 1 else tensor + noise)


def written(kind: str, config: dict, folder: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model_kind, config_kind = (getattr(transformers, f"{kind}{part}") for part in ("Model", "Config"))
    torch.manual_seed(0)
    model = model_kind(config_kind(**config)).eval()
    spread(model)
    model.save_pretrained(folder)
    return model


def away(ours: torch.Tensor, theirs: object) -> float:
    found = getattr(theirs, "pooler_output", theirs)
    return float((ours - nn.functional.normalize(found, dim=-1)).abs().max())


def clip_differences(folder: Path, model: nn.Module, tokens_below: int) -> dict[str, float]:
    kind, values = read_kind(folder)
    assert kind == "clip"
    config, path = convert_config(values, ClipConfig, folder), weights_file(folder)
    frames = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    tokens = torch.zeros(3, 77, dtype=torch.int64)
    for row, length in enumerate((1, 5, 75)):
        tokens[row, 1 : 1 + length] = torch.randint(1, tokens_below - 2, (length,))
        tokens[row, 1 + length] = tokens_below - 1
    with torch.inference_mode():
        return {
            "vision": away(load_clip(path, config, "vision")(frames), model.get_image_features(pixel_values=frames)),
            "text": away(load_clip(path, config, "text")(tokens), model.get_text_features(input_ids=tokens)),
        }


def clap_differences(folder: Path, model: nn.Module) -> dict[str, float]:
    kind, values = read_kind(folder)
    assert kind == "clap"
    config, path = convert_config(values, ClapConfig, folder), weights_file(folder)
    sounds = -40 + 20 * torch.randn(2, 1, 1001, 64, generator=torch.Generator().manual_seed(1))
    tokens = torch.ones(3, 77, dtype=torch.int64)
    for row, length in enumerate((1, 5, 75)):
        tokens[row, 1 : 1 + length] = torch.randint(4, 99, (length,))
        tokens[row, 0], tokens[row, 1 + length] = 0, 2
    with torch.inference_mode():
        audio = model.get_audio_features(input_features=sounds, is_longer=torch.zeros(2, 1, dtype=torch.bool))
        text = model.get_text_features(input_ids=tokens, attention_mask=(tokens != 1).long())
        return {
            "audio": away(load_clap(path, config, "audio")(sounds), audio),
            "text": away(load_clap(path, config, "text")(tokens), text),
        }


@pytest.mark.parametrize(("patch", "activation"), [(32, "quick_gelu"), (16, "quick_gelu"), (32, "gelu")])
def test_clip_is_that_of_transformers(tmp_path, patch, activation):
    towers = {part: {**SMALL_CLIP[part], "hidden_act": activation} for part in ("text_config", "vision_config")}
    towers["vision_config"]["patch_size"] = patch
    model = written("CLIP", {**SMALL_CLIP, **towers}, tmp_path)
    assert all(found < AWAY for found in clip_differences(tmp_path, model, 100).values())


def test_clap_is_that_of_transformers(tmp_path):
    model = written("Clap", SMALL_CLAP, tmp_path)
    assert all(found < AWAY for found in clap_differences(tmp_path, model).values())


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.full_size
def test_full_size_clip_is_that_of_transformers(tmp_path):
    model = written("CLIP", {}, tmp_path)
    assert all(found < AWAY for found in clip_differences(tmp_path, model, 49_408).values())


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.parametrize("config", [{}, LARGER_CLAP], ids=["unfused", "larger"])
def test_full_size_clap_is_that_of_transformers(tmp_path, config):
    model = written("Clap", config, tmp_path)
    assert all(found < AWAY for found in clap_differences(tmp_path, model).values())


def published_weights(*parts) -> int:
    return sum(math.prod(shape) for entries in parts for e in entries.values() for shape in e.shapes.values())


@pytest.mark.parametrize(("patch", "weights"), [(32, 151_277_313), (16, 149_620_737)])
def test_clip_has_as_many_weights_as_published(patch, weights):
    config = convert({"vision_config": {"patch_size": patch}}, ClipConfig)
    towers = (clip_entries(config, sense) for sense in ("vision", "text"))
    assert published_weights(*towers) + 1 == weights  # the scale of similarities, which cancels in a cosine


@pytest.mark.parametrize(("values", "millions"), [({}, 153.49), (LARGER_CLAP, 193.91)])
def test_clap_has_as_many_weights_as_published(values, millions):
    config = convert(values, ClapConfig)
    with torch.device("meta"):
        towers = [clap_entries(sense, clap_tower(config, sense).state_dict()) for sense in ("audio", "text")]
    # Two scales, which cancel in a cosine. What a batch normalization has seen of its input is no parameter.
    assert round((published_weights(*towers) + 2 - 2 * 64) / 1e6, 2) == millions


def test_a_text_in_another_batch_or_row_is_the_same():
    torch.manual_seed(0)
    tower = clap_tower(convert(SMALL_CLAP, ClapConfig), "text").eval()
    spread(tower)
    tokens = torch.full((2, 77), 1)
    tokens[:, :4] = torch.tensor([[0, 7, 9, 2], [0, 11, 2, 1]])
    with torch.inference_mode():
        np.testing.assert_allclose(tower(tokens)[:1], tower(tokens[:1, :4]), atol=1e-6)


def test_other_models_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of weights"):
        read_kind(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="model_type"):
        read_kind(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap", "audio_config": {"enable_fusion": True}}))
    with pytest.raises(InputError, match="unfused"):
        convert_config(read_kind(tmp_path)[1], ClapConfig, tmp_path)
    with pytest.raises(InputError, match="image_size"):
        convert_config({"vision_config": {"image_size": 336}}, ClipConfig, tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights_file(tmp_path)
