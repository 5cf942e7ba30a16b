"""Measures against outliers of trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper
from support.traced_once import TracedOnce
from torch import nn

from ovavel.export.inputs import calibration_inputs, sense_inputs
from ovavel.export.precision.activations import Activation, observe_activations
from ovavel.export.precision.outliers import plant_outliers
from ovavel.export.precision.quantize import INT8, INT16_ANY, QuantizeRecipe, quantize, rounding_noise
from ovavel.runtime.errors import ExportError
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig

pytestmark = pytest.mark.slow


TINY = ImageBindConfig.tiny()


def exported(
    folder: Path, model: onnx_ir.Model, seen: Sequence[Activation], recipe: QuantizeRecipe
) -> ort.InferenceSession:
    """What becomes of an audio encoder by `recipe`."""
    quantize(model, seen, recipe)
    onnx_ir.save(model, folder / "audio.onnx")
    return ort.InferenceSession(str(folder / "audio.onnx"), providers=["CPUExecutionProvider"])


def least_cosine(session: ort.InferenceSession, tower: nn.Module) -> float:
    cosines = []
    for prepared in sense_inputs("audio", ImageBindConfig.tiny().encoders, range(4)).values():
        expected = tower(torch.from_numpy(prepared[None])).numpy().astype(np.float64)
        answer = session.run(None, {"log_mel": prepared[None]})[0].astype(np.float64)
        cosines.append((answer * expected).sum() / np.linalg.norm(answer) / np.linalg.norm(expected))
    return float(min(cosines))


@pytest.fixture(scope="module")
def outlier_tower(tiny_weights: Path) -> nn.Module:
    tower = ImageBind.load(tiny_weights, TINY, ("audio",)).towers["audio"]
    plant_outliers(tower)
    return tower.requires_grad_(False)


def test_migration_leaves_the_function_unchanged(
    outlier_tower: nn.Module, tmp_path: Path, traced_once: TracedOnce
) -> None:
    seen = observe_activations(outlier_tower, calibration_inputs("audio", ImageBindConfig.tiny().encoders))
    model = traced_once("audio", outlier_tower, encoders=TINY.encoders)
    session = exported(tmp_path, model, seen, QuantizeRecipe(mode="float"))
    assert least_cosine(session, outlier_tower) > 1 - 1e-10
    matrices = {tensor.name: tensor for tensor in onnx.load(tmp_path / "audio.onnx").graph.initializer}
    ours = numpy_helper.to_array(matrices["block_0.qkv.weight"])
    theirs = outlier_tower.get_parameter("blocks.0.attention.qkv.weight").numpy().T
    assert not np.allclose(ours, theirs, rtol=0.1)  # it was migrated at all


def test_each_measure_against_outliers_gains(outlier_tower: nn.Module, tmp_path: Path, traced_once: TracedOnce) -> None:
    seen = observe_activations(outlier_tower, calibration_inputs("audio", ImageBindConfig.tiny().encoders))
    model = traced_once("audio", outlier_tower, encoders=TINY.encoders)
    recipes = [
        QuantizeRecipe(migrate=False, any_cpu=True),
        QuantizeRecipe(any_cpu=True),
        QuantizeRecipe(mode="16x8", any_cpu=True),
        INT16_ANY,
    ]
    plain, migrated, wide, widest = (
        1 - least_cosine(exported(tmp_path, model.clone(), seen, recipe), outlier_tower) for recipe in recipes
    )
    assert plain > 10 * migrated > 0
    assert migrated > 1.3 * wide > 0
    assert 1e-6 > widest > 0


def test_noisy_layers_get_more_bits(outlier_tower: nn.Module, traced_once: TracedOnce) -> None:
    model = traced_once("audio", outlier_tower, encoders=TINY.encoders)
    seen = observe_activations(outlier_tower, calibration_inputs("audio", ImageBindConfig.tiny().encoders))
    modes = quantize(model, seen, QuantizeRecipe(noise=0.02))
    assert len(modes) == 4 * TINY.audio.blocks
    assert set(modes.values()) == {"8x8", "16x8"}
    noise = {
        name: rounding_noise(np.eye(len(each.peaks), dtype=np.float32), each, "8x8")
        for name, each in zip(modes, seen, strict=False)
    }
    assert max(noise, key=lambda name: noise[name]).partition(".")[2] in {
        name.partition(".")[2] for name, mode in modes.items() if mode == "16x8"
    }


@settings(max_examples=30, deadline=None)
@given(
    rows=arrays(np.float32, (6, 8), elements=st.floats(-1e3, 1e3, width=32)),
    weights=arrays(np.float32, (8, 5), elements=st.floats(-2, 2, width=32)),
)
def test_noise_falls_with_every_bit(rows: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    seen = Activation(peaks=np.abs(rows).max(axis=0), rows=(rows,))
    if np.linalg.norm(rows @ weights) < 0.1 * np.linalg.norm(rows) * np.linalg.norm(weights):
        return  # sums that cancel: no bound on the relative error
    noise = [rounding_noise(weights, seen, mode) for mode in ("8x8", "16x8", "16x16", "float")]
    assert noise[0] < 0.5
    assert noise[1] < 0.2
    assert noise[2] < 1e-2
    assert noise[3] == 0


def test_the_activations_of_another_encoder_are_refused(
    outlier_tower: nn.Module, tiny_weights: Path, traced_once: TracedOnce
) -> None:
    model = traced_once("audio", outlier_tower, encoders=TINY.encoders)
    vision = ImageBind.load(tiny_weights, TINY, ("vision",)).towers["vision"]
    seen = observe_activations(vision, calibration_inputs("vision", ImageBindConfig.tiny().encoders))
    with pytest.raises(ExportError, match="do not match those that were observed"):
        quantize(model, seen, INT8)


def test_outliers_are_for_encoders_of_patches(tiny_weights: Path) -> None:
    with pytest.raises(TypeError, match="not for TextTower"):
        plant_outliers(ImageBind.load(tiny_weights, TINY, ("text",)).towers["text"])
