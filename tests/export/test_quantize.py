"""Encoders in int8: what is quantised, how near they stay, and that too far is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from golden_weights import golden_inputs, golden_state
from onnx_graphs import computed_shapes
from safetensors.torch import save_file

from ovavel.export.bundle import write_bundle
from ovavel.export.graphs import export_graph
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, ExportError, UsageError
from ovavel.runtime.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.samples import random_frame, random_waveform
from ovavel.training.imagebind import ImageBind, ImageBindConfig, Modality

TINY = ImageBindConfig.tiny()
BLOCKS: dict[Modality, int] = {"vision": TINY.vision.blocks, "audio": TINY.audio.blocks}


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The tiny bundle with encoders in int8, written by the command: do not change it."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "names.txt").write_text("dog barking\nrace car\n")
    arguments = ["--weights", str(tiny_weights), "--config", "tiny", "--vocabulary", str(folder / "names.txt")]
    assert main(["export", "bundle", *arguments, "--out", str(folder / "bundle"), "--precision", "int8"]) == 0
    return folder / "bundle"


def test_only_vision_and_audio_are_in_int8(int8_bundle: Path) -> None:
    bundle = Bundle.open(int8_bundle)
    assert bundle.manifest.graphs == {
        "vision": {"int8": "vision.int8.onnx"},
        "audio": {"int8": "audio.int8.onnx"},
        "text": {"fp32": "text.onnx"},
        "head": {"fp32": "head.onnx"},
    }
    assert {"vision.int8.onnx.data", "audio.int8.onnx.data"} < set(bundle.manifest.files)
    assert not {"vision.onnx", "audio.onnx"} & set(bundle.manifest.files)
    checks = {check.graph: check for check in bundle.manifest.parity.checks}
    for modality in ("vision", "audio"):
        check = checks[modality]
        assert check.tolerance is None
        assert check.required_cosine == 0.99 <= (check.min_cosine or 0) < 1
        assert check.cases >= 24
    assert checks["text"].required_cosine is checks["head"].required_cosine is None


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_the_matrices_of_the_blocks_are_quantised_and_nothing_else(int8_bundle: Path, modality: Modality) -> None:
    path = int8_bundle / f"{modality}.int8.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert not computed_shapes(path)
    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["MatMulInteger"] == operators["DynamicQuantizeLinear"] == 4 * BLOCKS[modality]
    assert operators["MatMul"] == 2 * BLOCKS[modality]  # attention, which has no weights
    assert operators["Conv"] == operators["Gemm"] == 1  # stem and projection
    kinds = Counter(tensor.data_type for tensor in graph.initializer)
    assert kinds[onnx.TensorProto.INT8] == 4 * BLOCKS[modality]
    width = getattr(TINY, modality).width
    assert not [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and list(tensor.dims) == [width, 4 * width]
    ]


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_embeddings_stay_near(int8_bundle: Path, tiny_weights: Path, modality: Modality) -> None:
    seeds = range(100, 110)  # none that the export looked at
    inputs = [golden_inputs()[modality].numpy()[:1]]
    if modality == "vision":
        inputs += [prepare_frame(random_frame(seed))[None] for seed in seeds]
    else:
        inputs += [prepare_waveform(random_waveform(seed))[None] for seed in seeds]
    tower = ImageBind.load(tiny_weights, TINY, (modality,)).towers[modality]
    backend = open_backend(Bundle.open(int8_bundle), device="cpu", graphs=(modality,))
    for array in inputs:
        expected = tower(golden_inputs()[modality].new_tensor(array)).numpy()
        answer = getattr(backend, modality)(array)
        assert (answer * expected).sum() >= 0.99
        assert not np.array_equal(answer, expected)  # fp32 under another name would be
    backend.close()


def test_the_backend_says_what_runs(int8_bundle: Path) -> None:
    bundle = Bundle.open(int8_bundle)
    backend = open_backend(bundle, device="cpu", graphs=("vision", "audio", "text", "head"))
    assert backend.info.precision == {"vision": "int8", "audio": "int8", "text": "fp32", "head": "fp32"}
    backend.warm_up()
    backend.close()


def test_int8_is_refused_on_a_gpu(int8_bundle: Path) -> None:
    from ovavel.runtime.backends.onnxruntime import OnnxRuntimeBackend

    bundle = Bundle.open(int8_bundle)
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8; it runs fp16, bf16, fp32"):
        OnnxRuntimeBackend(bundle, 0, 1, ("vision",), "int8")
    with pytest.raises(BundleError, match="no fp32 vision graph; its precisions are: int8"):
        OnnxRuntimeBackend(bundle, 0, 1, ("vision",))


def test_the_same_weights_give_the_same_bytes(int8_bundle: Path, tiny_weights: Path, tmp_path: Path) -> None:
    tower = ImageBind.load(tiny_weights, TINY, ("audio",)).towers["audio"]
    for file in export_graph("audio", tower, tmp_path, embedding_size=TINY.embedding_size, precision="int8"):
        assert file.read_bytes() == (int8_bundle / file.name).read_bytes()


def test_weights_that_lose_too_much_are_refused(tmp_path: Path) -> None:
    state = golden_state(TINY)
    # A channel 10 000 times as large as the others takes all 256 steps of its tensor for itself. fp32 does not mind:
    # the matrix after it ignores it.
    for norm, matrix in (("norm_1", "attn.in_proj_weight"), ("norm_2", "mlp.fc1.weight")):
        state[f"modality_trunks.vision.blocks.0.{norm}.weight"][5] *= 1e4
        state[f"modality_trunks.vision.blocks.0.{matrix}"][:, 5] = 0
    save_file(state, tmp_path / "outlier.safetensors")
    (tmp_path / "place").mkdir()
    with pytest.raises(
        ExportError, match=r"vision graph in int8 .* is -?0\.\d{4} \(for .+\).*0\.99.*without --precision int8"
    ):
        write_bundle(
            tmp_path / "outlier.safetensors", tmp_path / "place" / "bundle", ["dog"], config=TINY, precisions=["int8"]
        )
    assert not list((tmp_path / "place").iterdir())
