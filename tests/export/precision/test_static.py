"""Static 8-bit quantization: positions of the scales, accuracy of the encoders, and execution by TensorRT-RTX."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.traced_once import TracedOnce

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.inputs import calibration_inputs
from ovavel.export.precision.activations import observe_activations
from ovavel.export.precision.passes import PASSES
from ovavel.export.precision.static import Static
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import ExportError, UsageError
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality

pytestmark = pytest.mark.slow

TINY = ImageBindConfig.tiny()
BLOCKS: dict[Modality, int] = {"vision": TINY.vision.blocks, "audio": TINY.audio.blocks}
TYPE = {"fp8": onnx.TensorProto.FLOAT8E4M3FN, "int8-static": onnx.TensorProto.INT8}

encoders = pytest.mark.parametrize("modality", ["vision", "audio"])
forms = pytest.mark.parametrize("form", get_args(Static))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Bundle:
    """Return the tiny bundle in fp32 and both 8-bit forms; do not change it."""
    out = tmp_path_factory.mktemp("static") / "bundle"
    return write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), out, precisions=["fp32", *get_args(Static)])


@encoders
@forms
def test_each_matrix_and_its_activation_are_in_8_bits(bundle: Bundle, modality: Modality, form: Static) -> None:
    path = bundle.path / f"{modality}.{form}.onnx"
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    count = Counter(node.op_type for node in graph.node)
    assert count["QuantizeLinear"] == 4 * BLOCKS[modality]
    assert count["DequantizeLinear"] == 8 * BLOCKS[modality]
    for node in graph.node:
        packed = [tensors.get(makers[name].input[0]) for name in node.input if name in makers]
        matrices = [tensor for tensor in packed if tensor is not None and len(tensor.dims) == 2]
        if node.op_type == "MatMul" and matrices:
            assert [makers[name].op_type for name in node.input] == ["DequantizeLinear"] * 2
            assert makers[makers[node.input[0]].input[0]].op_type == "QuantizeLinear"
            assert matrices[0].data_type == TYPE[form]
            scale = numpy_helper.to_array(tensors[makers[node.input[1]].input[1]])
            assert scale.dtype == np.float16  # so the product is fp16 where it is not 8 bits
            assert scale.shape == ((matrices[0].dims[1],) if form == "int8-static" else ())
    for value in (graph.input[0], graph.output[0]):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@forms
def test_the_manifest_records_their_accuracy(bundle: Bundle, form: Static) -> None:
    checks = [check for check in bundle.manifest.parity.checks if check.precision == form]
    assert [check.graph for check in checks] == ["vision", "audio"]
    for check in checks:
        assert 0.99 == check.required_cosine <= (check.min_cosine or 0) < 1
        assert check.method == f"ONNX Runtime on the CPU, emulating {form}"
    assert all(form not in graphs.values() for graphs in bundle.manifest.precision.values())  # never a default


@forms
def test_onnxruntime_does_not_run_them(bundle: Bundle, form: Static) -> None:
    with pytest.raises(UsageError, match=f"onnxruntime-cpu does not run {form}"):
        open_backend(bundle, device="cpu", precision=form)


@forms
def test_observations_of_another_encoder_are_refused(tiny_weights: Path, form: Static, traced_once: TracedOnce) -> None:
    towers = ImageBind.load(tiny_weights, TINY, ("vision", "audio")).towers
    model = traced_once("vision", towers["vision"], encoders=TINY.encoders)
    seen = observe_activations(towers["audio"], calibration_inputs("audio", ImageBindConfig.tiny().encoders)[:1])
    with pytest.raises(ExportError, match="do not match those that were observed"):
        PASSES[form](model, seen)


@forms
def test_tensorrt_rtx_computes_in_8_bits(
    bundle: Bundle, form: Static, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    arguments = ["--library", "tensorrt-rtx", "--compute-capability", "8.9", "--graphs", "audio", "--batch", "1"]
    assert (
        main(
            ["bundle", "engine", "--bundle", str(bundle.path), *arguments, "--precision", form, "--out", str(tmp_path)]
        )
        == 0
    )
    products = 4 * BLOCKS["audio"]
    assert f"{products} of {products + 2} matrix products in {form.removesuffix('-static')}" in capsys.readouterr().out
