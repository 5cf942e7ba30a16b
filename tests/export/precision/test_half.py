"""Encoders in fp16 and bf16: what computes in half precision, how accurate it is, and that overflows are detected."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file
from support.golden_weights import golden_inputs, golden_state

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.precision.half import Half, emulated
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import ExportError, UsageError
from ovavel.training.models.imagebind.model import ImageBindConfig, Modality

pytestmark = pytest.mark.slow

TINY = ImageBindConfig.tiny()
BLOCKS: dict[Modality, int] = {"vision": TINY.vision.blocks, "audio": TINY.audio.blocks}
TYPE = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

encoders = pytest.mark.parametrize("modality", ["vision", "audio"])
halves = pytest.mark.parametrize("half", ["fp16", "bf16"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Bundle:
    """Return the tiny bundle in three precisions; do not change it."""
    out = tmp_path_factory.mktemp("half") / "bundle"
    return write_bundle(
        BundleContents(tiny_weights, ["dog barking"], config=TINY), out, precisions=["fp32", "fp16", "bf16"]
    )


def graph_of(bundle: Bundle, modality: Modality, half: str) -> onnx.GraphProto:
    return onnx.load(bundle.path / f"{modality}.{half}.onnx", load_external_data=False).graph


def test_each_precision_has_a_file_and_each_engine_a_default(bundle: Bundle) -> None:
    names = {"fp32": "vision.onnx", "fp16": "vision.fp16.onnx", "bf16": "vision.bf16.onnx"}
    assert bundle.manifest.graphs["vision"] == names
    assert bundle.manifest.graphs["text"] == {"fp32": "text.onnx"}
    defaults = {engine: graphs["vision"] for engine, graphs in bundle.manifest.precision.items()}
    assert defaults["onnxruntime-cpu"] == "fp32"
    assert defaults["onnxruntime-cuda"] == defaults["tensorrt"] == defaults["tensorrt-rtx"] == "fp16"
    assert {graphs["head"] for graphs in bundle.manifest.precision.values()} == {"fp32"}
    checks = {(check.graph, check.precision): check for check in bundle.manifest.parity.checks}
    assert set(checks) == {(m, p) for m in BLOCKS for p in names} | {("text", "fp32"), ("head", "fp32")}
    for modality in BLOCKS:
        assert 1 > (checks[modality, "fp16"].min_cosine or 0) > (checks[modality, "bf16"].min_cosine or 0) >= 0.999
        assert checks[modality, "bf16"].method == "ONNX Runtime on the CPU, emulating bf16"
        assert checks[modality, "fp32"].method == "ONNX Runtime on the CPU"


def test_other_precisions_do_not_change_the_fp32_graphs(bundle: Bundle, exported_bundle: Path) -> None:
    for name in ("vision.onnx", "vision.onnx.data", "audio.onnx", "audio.onnx.data"):
        assert (bundle.path / name).read_bytes() == (exported_bundle / name).read_bytes()


@encoders
@halves
def test_products_compute_in_half_and_sums_of_the_residual_stream_do_not(
    bundle: Bundle, modality: Modality, half: str
) -> None:
    path = bundle.path / f"{modality}.{half}.onnx"
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    kinds.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "Softmax", "Gelu"):
            assert {kinds[name] for name in (*node.input, *node.output)} == {TYPE[half]}
        if node.op_type in ("LayerNormalization", "ReduceL2", "Div"):
            assert {kinds[name] for name in node.output} == {TensorProto.FLOAT}
    constants = {tensor.name for tensor in graph.initializer}
    sums = [node for node in graph.node if node.op_type == "Add" and not constants & set(node.input)]
    residual = [node for node in sums if kinds[node.output[0]] == TensorProto.FLOAT]
    assert len(residual) == 2 * BLOCKS[modality]
    for value in (graph.input[0], graph.output[0]):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


@encoders
@halves
def test_the_matrices_are_half_as_large(bundle: Bundle, modality: Modality, half: str) -> None:
    tensors = graph_of(bundle, modality, half).initializer
    width = getattr(TINY, modality).width
    matrices = [tensor for tensor in tensors if len(tensor.dims) == 2 and width in tensor.dims]
    assert len(matrices) == 4 * BLOCKS[modality] + 1
    assert {tensor.data_type for tensor in matrices} == {TYPE[half]}
    assert Counter(tensor.name for tensor in tensors).most_common(1)[0][1] == 1


@encoders
def test_fp16_runs_on_a_cpu_and_bf16_does_not(bundle: Bundle, modality: Modality) -> None:
    inputs = golden_inputs()[modality].numpy()
    answers = []
    for precision in ("fp32", "fp16"):
        backend = open_backend(bundle, device="cpu", precision=precision, graphs=(modality, "head"))
        assert backend.info.precision == {modality: precision, "head": "fp32"}
        answers.append(getattr(backend, modality)(inputs))
        backend.close()
    assert answers[1].dtype == np.float32
    assert (answers[0] * answers[1]).sum(axis=1).min() >= 0.999
    assert not np.array_equal(*answers)
    with pytest.raises(UsageError, match="onnxruntime-cpu does not run bf16"):
        open_backend(bundle, device="cpu", precision="bf16")


@encoders
@halves
def test_the_emulation_is_close_to_the_reference_implementation_of_onnx(
    bundle: Bundle, modality: Modality, half: Half
) -> None:
    """The reference also sums in half precision, so the two differ more in bf16."""
    if half == "bf16" and tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23):
        pytest.skip("the reference implementation of onnx before 1.23 multiplies no stacks of matrices in bf16")
    path = bundle.path / f"{modality}.{half}.onnx"
    (name,) = (value.name for value in graph_of(bundle, modality, half).input)
    feed = {name: golden_inputs()[modality].numpy()}
    (expected,) = ReferenceEvaluator(onnx.load(path)).run(None, feed)
    with emulated(path) as twin:
        (answer,) = onnxruntime.InferenceSession(str(twin), providers=["CPUExecutionProvider"]).run(None, feed)
    assert not twin.exists()
    assert (answer * expected).sum(axis=1).min() >= (0.99999 if half == "fp16" else 0.999)


def test_a_value_too_large_for_fp16_is_detected(tmp_path: Path) -> None:
    state = golden_state(TINY)
    # Values of a million, scaled back by the next matrix: fine in fp32 and bf16.
    for bias_or_matrix in ("in_proj_weight", "in_proj_bias"):
        state[f"modality_trunks.audio.blocks.1.attn.{bias_or_matrix}"][2 * TINY.audio.width :] *= 1e6
    for name in ("bias_k", "bias_v"):
        state[f"modality_trunks.audio.blocks.1.attn.{name}"] *= 1e6 if name == "bias_v" else 1
    state["modality_trunks.audio.blocks.1.attn.out_proj.weight"] /= 1e6
    save_file(state, tmp_path / "large.safetensors")
    write_bundle(
        BundleContents(tmp_path / "large.safetensors", ["dog"], config=TINY), tmp_path / "bf16", precisions=["bf16"]
    )
    with pytest.raises(ExportError, match=r"audio graph in fp16 produces non-finite values .*too large"):
        write_bundle(
            BundleContents(tmp_path / "large.safetensors", ["dog"], config=TINY), tmp_path / "fp16", precisions=["fp16"]
        )
    assert not (tmp_path / "fp16").exists()


def test_the_command_prints_precision_and_method(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ovavel.runtime.cli import main

    (tmp_path / "names.txt").write_text("dog barking\n")
    arguments = ["--weights", str(tiny_weights), "--config", "tiny", "--vocabulary", str(tmp_path / "names.txt")]
    arguments += ["--out", str(tmp_path / "bundle"), "--precision", "bf16", "fp32"]
    assert main(["bundle", "export", *arguments]) == 0
    out = capsys.readouterr().out
    assert "vision in bf16: a cosine of at least 0.999" in out
    assert "ONNX Runtime on the CPU, emulating bf16" in out
    assert list(Bundle.open(tmp_path / "bundle").manifest.graphs["audio"]) == ["bf16", "fp32"]
