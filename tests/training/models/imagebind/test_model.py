"""The encoders against the original implementation, and invalid checkpoints of every kind."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from support.golden_weights import (
    MODALITIES,
    error_of,
    golden_entries,
    golden_state,
    inputs,
    peak_of_loading,
    size_of,
    write_golden_checkpoint,
)
from torch import Tensor

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality, TowerConfig, published_entries
from ovavel.training.models.unit import unit_norm

TINY = ImageBindConfig.tiny()
HUGE = ImageBindConfig.huge()
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return golden_state(TINY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ImageBind:
    return ImageBind.load(write_golden_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.pth", TINY), TINY)


@pytest.mark.parametrize("config", [TINY, HUGE], ids=lambda config: config.name)
def test_entries_are_those_of_the_published_file(config: ImageBindConfig) -> None:
    assert published_entries(config) == golden_entries(config)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tiny_matches_the_original(tmp_path: Path, modality: Modality, suffix: str) -> None:
    path = write_golden_checkpoint(tmp_path / f"tiny{suffix}", TINY)
    model = ImageBind.load(path, TINY, modalities=(modality,))
    assert not model.training
    assert list(model.towers) == [modality]
    assert error_of(model, modality) <= TOLERANCE


MEDIUM = ImageBindConfig(
    name="medium",
    vision=TowerConfig(width=512, blocks=16, heads=8),
    audio=TowerConfig(width=512, blocks=16, heads=8),
    text=TowerConfig(width=512, blocks=8, heads=8),
    embedding_size=512,
)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sparse safetensors file of 0.6 GB, all zeros; in memory it takes its full size."""
    header, end = {}, 0
    for name, shape in published_entries(MEDIUM).items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
    encoded = msgspec.json.encode(header)
    path = tmp_path_factory.mktemp("medium") / "medium.safetensors"
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)
    os.truncate(path, 8 + len(encoded) + end)
    return path


@pytest.mark.parametrize("modality", MODALITIES)
def test_loading_one_modality_takes_little_more_memory_than_its_size(medium: Path, modality: Modality) -> None:
    size = size_of(MEDIUM, modality)
    assert size < 0.5 * medium.stat().st_size
    assert peak_of_loading(medium, MEDIUM, modality) < 1.3 * size


def test_still_frame_equals_the_repeated_frame(state: dict[str, Tensor], model: ImageBind) -> None:
    frame = inputs(TINY)["vision"]
    kernel = state["modality_preprocessors.vision.rgbt_stem.proj.1.weight"]
    repeated = torch.stack((frame, frame), dim=2)
    expected = torch.nn.functional.conv3d(repeated, kernel, stride=(2, 14, 14)).squeeze(2)
    torch.testing.assert_close(model.towers["vision"].stem(frame), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_each_input_of_a_batch_is_encoded_independently(model: ImageBind, modality: Modality) -> None:
    x = inputs(TINY)[modality]
    alone = torch.cat([getattr(model, modality)(one[None]) for one in x])
    torch.testing.assert_close(getattr(model, modality)(x), alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.norm(dim=-1), torch.ones(len(x)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_the_last_block_gives_the_same_with_the_first_token_only(model: ImageBind, modality: Modality) -> None:
    block = model.towers[modality].blocks[-1]
    x = torch.randn(2, 7, block.norm_1.weight.shape[0], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x, first_only=True), block(x)[:, :1], atol=1e-5, rtol=1e-5)


def test_unit_norm_equals_that_of_pytorch_bit_for_bit() -> None:
    x = (
        torch.randn(3, 5, 1024, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-20, 1.0, 1e10])[:, None, None]
    )
    x[1, 2] = 0
    assert torch.equal(unit_norm(x), torch.nn.functional.normalize(x, dim=-1))


def test_text_after_the_end_token_is_ignored(model: ImageBind) -> None:
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[:, :3] = torch.tensor([49406, 1929, 49407])
    tokens[1, 3:] = 17
    first, second = model.text(tokens)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_weights_stay_frozen(model: ImageBind) -> None:
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.vision(inputs(TINY)["vision"]).requires_grad


@pytest.mark.parametrize("modality", MODALITIES)
def test_towers_export_to_onnx_for_any_batch(model: ImageBind, modality: Modality, tmp_path: Path) -> None:
    x = inputs(TINY)[modality]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.towers[modality],
            (x[:2],),
            dynamo=True,
            opset_version=20,
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    program.save(tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tower.onnx", providers=["CPUExecutionProvider"])
    for batch in (x[:1], x, x.repeat(3, *[1] * (x.ndim - 1))):
        (embedding,) = session.run(None, {"x": batch.numpy()})
        np.testing.assert_allclose(embedding, getattr(model, modality)(batch).numpy(), atol=2e-5, rtol=0)


def test_config_converts_to_plain_values_and_back() -> None:
    for config in (TINY, HUGE, MEDIUM):
        text = msgspec.json.encode(config.to_dict())
        assert ImageBindConfig.from_dict(msgspec.json.decode(text)) == config


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("audio"),
        lambda values: values.update(embedding_size="32"),
        lambda values: values.update(embedding_size=0),
        lambda values: values["vision"].update(heads=5),
        lambda values: values["text"].update(blocks=0),
    ],
)
def test_invalid_config_is_refused(change: Callable[[dict], object]) -> None:
    values = TINY.to_dict()
    change(values)
    with pytest.raises(UsageError, match="invalid ImageBind configuration"):
        ImageBindConfig.from_dict(values)


def test_invalid_arguments_are_reported(model: ImageBind, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(B, 3, 224, 224\), not \(1, 3, 100, 224\)"):
        model.vision(torch.zeros(1, 3, 100, 224))
    with pytest.raises(UsageError, match="smell"):
        ImageBind.load(tmp_path / "none.pth", TINY, modalities=("smell",))
    with pytest.raises(UsageError, match="without audio"):
        ImageBind(TINY, ("vision",)).audio(torch.zeros(1, 1, 128, 204))


# Valid and invalid checkpoints

SOME_NAMES = [name for name in published_entries(TINY) if ".blocks." not in name and not name.endswith(".mask")] + [
    "modality_trunks.audio.blocks.2.attn.bias_k",
    "modality_trunks.text.blocks.1.mlp.fc2.weight",
]


def load(state: dict[str, Tensor], folder: Path, **options: object) -> ImageBind:
    path = folder / "weights.safetensors"
    save_file(state, path)
    return ImageBind.load(path, TINY, **options)


def test_other_modalities_are_ignored(state: dict[str, Tensor], tmp_path: Path) -> None:
    extra = {
        f"modality_{part}.{name}.x": torch.zeros(3)
        for part in ("preprocessors", "trunks", "heads", "postprocessors")
        for name in ("depth", "thermal", "imu")
    }
    assert error_of(load(state | extra, tmp_path), "audio") <= TOLERANCE


def test_causal_mask_may_be_absent(state: dict[str, Tensor], tmp_path: Path) -> None:
    less = {name: tensor for name, tensor in state.items() if not name.endswith(".mask")}
    assert error_of(load(less, tmp_path), "text") <= TOLERANCE


def test_one_modality_loads_without_the_others(tmp_path: Path) -> None:
    state = golden_state(TINY, ("audio",))
    assert error_of(load(state, tmp_path, modalities=("audio",)), "audio") <= TOLERANCE
    with pytest.raises(CheckpointError, match="lacks"):
        load(state, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(state: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype) -> None:
    model = load({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert error_of(model, "vision") < 0.02


@pytest.mark.parametrize("name", SOME_NAMES)
def test_missing_entry_is_named(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    less = {key: tensor for key, tensor in state.items() if key != name}
    torch.save(less, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        ImageBind.load(tmp_path / "less.pth", TINY)


def test_extra_entry_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("modality_trunks.vision.blocks.2.norm_1.weight", "temperature", "modality_heads.smell.0.weight"):
        with pytest.raises(CheckpointError, match=name):
            load(state | {name: torch.zeros(3)}, tmp_path)


@pytest.mark.parametrize("name", ["modality_heads.audio.0.bias", "modality_postprocessors.text.1.log_logit_scale"])
def test_misshaped_entry_is_named(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{name} is \(7, 7\)"):
        load(state | {name: torch.zeros(7, 7)}, tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    path = write_golden_checkpoint(tmp_path / "tiny.pth", TINY)
    with pytest.raises(CheckpointError, match="of another size"):
        ImageBind.load(path)


def test_integers_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    name = "modality_heads.audio.0.bias"
    with pytest.raises(CheckpointError, match=f"{name}.*int8.*not floating point"):
        load(state | {name: torch.zeros(48, dtype=torch.int8)}, tmp_path)


def test_a_single_shard_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(CheckpointError, match="shard"):
        load(half, tmp_path)


def test_weights_stay_in_the_mapped_file(tmp_path: Path) -> None:
    path = write_golden_checkpoint(tmp_path / "tiny.pth", TINY)
    model = ImageBind.load(path, TINY)
    address = model.towers["text"].embedding.data_ptr()
    ranges = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    assert any(int(start, 16) <= address < int(end, 16) for start, end in (each.split("-") for each in ranges))
