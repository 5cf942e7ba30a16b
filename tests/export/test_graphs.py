"""Exported graphs: names and shapes, reproducible bytes, and errors that verification detects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from support.encoders import encoders
from support.golden_weights import GOLDEN, golden_head_inputs, golden_head_state, golden_inputs
from support.onnx_graphs import computed_shapes, export_graph
from support.proofs import proof_unless

from ovavel.export.graphs import OPSET, example_inputs
from ovavel.export.verify import (
    check_graph,
    head_inputs,
    reference,
)
from ovavel.runtime.bundle.graphs import Graph, graph_specs
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import ExportError
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.pipeline.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.verification.samples import random_frame, random_waveform, sample_frames, sample_waveforms
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality

SIZE = 32
TINY = ImageBindConfig.tiny()


def head_graph(blocks: int = 1, seed: int = 0) -> HeadGraph:
    torch.manual_seed(seed)
    return HeadGraph(TemporalHead(blocks, dim=SIZE, hidden=8, ffn=16)).eval()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `head.onnx` of `head_graph()`; do not change it."""
    folder = tmp_path_factory.mktemp("head")
    export_graph("head", head_graph(), folder, encoders=encoders(SIZE))
    return folder / "head.onnx"


def run(path: Path, *inputs: np.ndarray) -> Sequence[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))


@pytest.mark.parametrize("graph", ["vision", "audio", "text", "head"])
def test_names_and_shapes_match_the_specification(exported_bundle: Path, graph: Graph) -> None:
    model = onnx.load(exported_bundle / f"{graph}.onnx", load_external_data=False)
    onnx.checker.check_model(exported_bundle / f"{graph}.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    inputs = {
        value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }
    spec = graph_specs(encoders(SIZE))[graph]
    assert inputs == spec.inputs
    assert [value.name for value in model.graph.output] == list(spec.outputs)


@pytest.mark.parametrize("graph", ["vision", "audio", "head"])
def test_a_graph_for_gpus_leaves_nothing_to_the_cpu(exported_bundle: Path, graph: Graph) -> None:
    """ONNX Runtime runs arithmetic on shapes on the CPU, and is configured to refuse that for GPUs."""
    assert not computed_shapes(exported_bundle / f"{graph}.onnx")


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_constants_are_folded(exported_bundle: Path, modality: Modality) -> None:
    """A block has 2 norms, 4 matrices with biases, the 2 products and the softmax of attention, and 2 sums."""
    graph = onnx.load(exported_bundle / f"{modality}.onnx", load_external_data=False).graph
    count = Counter(node.op_type for node in graph.node)
    blocks, audio = getattr(TINY, modality).blocks, modality == "audio"
    extra = 2 * blocks if audio else 0  # the key and the value that audio adds to each block
    assert count["MatMul"] == 6 * blocks
    assert count["Add"] == 6 * blocks + 2 + extra  # class token, positions
    assert count["LayerNormalization"] == 2 * blocks + 2
    assert (count["Softmax"], count["Gelu"], count["Split"]) == (blocks, blocks, blocks)
    assert (count["Reshape"], count["Transpose"]) == (4 * blocks + 1, 4 * blocks + 1)  # splitting and merging heads
    assert count["Slice"] == 3  # the first token: for the shape of the batch, as a query, and in the residual stream
    assert count["Mul"] == 1  # by 0, for the shape of the batch: attention's scale is in its weights
    assert count["Concat"] == 1 + extra
    assert not {"Gather", "Unsqueeze", "Cast", "Constant", "Identity", "Conv3d"} & set(count)
    assert len(graph.node) == (29 if audio else 25) * blocks + 17


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_an_encoder_takes_any_batch(exported_bundle: Path, tiny_weights: Path, modality: Modality) -> None:
    tower = ImageBind.load(tiny_weights, TINY, (modality,)).towers[modality]
    inputs = torch.randn((5, *golden_inputs()[modality].shape[1:]), generator=torch.Generator().manual_seed(0))
    for batch in (inputs[:1], inputs[:2], inputs):
        (answer,) = run(exported_bundle / f"{modality}.onnx", batch.numpy())
        np.testing.assert_allclose(answer, tower(batch).numpy(), atol=2e-5, rtol=0)


def test_the_head_takes_any_number_of_segments(head: Path) -> None:
    module = head_graph()
    for segments in range(1, 14):
        inputs = (*torch.randn(2, 2, segments, SIZE), *torch.randn(2, segments, SIZE))
        with torch.no_grad():
            expected = module(*inputs)
        for theirs, ours in zip(expected, run(head, *(tensor.numpy() for tensor in inputs)), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("graph", ["vision", "audio", "text", "head"])
def test_a_graph_contains_nothing_about_the_machine_that_wrote_it(exported_bundle: Path, graph: Graph) -> None:
    data = (exported_bundle / f"{graph}.onnx").read_bytes()
    for trace in (b".py", b"/home", str(Path.cwd()).encode()):
        assert trace not in data


def test_the_same_module_gives_the_same_bytes(tmp_path: Path, head: Path) -> None:
    for file in export_graph("head", head_graph(), tmp_path, encoders=encoders(SIZE)):
        assert file.read_bytes() == (head.parent / file.name).read_bytes()


def test_a_head_without_blocks_has_no_external_weights(tmp_path: Path) -> None:
    assert export_graph("head", head_graph(0), tmp_path, encoders=encoders(SIZE)) == [tmp_path / "head.onnx"]
    assert [file.name for file in tmp_path.iterdir()] == ["head.onnx"]


@pytest.mark.parametrize("blocks", proof_unless((2).__eq__, [1, 2]))
def test_the_golden_head_through_onnx(tmp_path: Path, blocks: int) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in golden_head_state(blocks).items()}, tmp_path / "head.safetensors"
    )
    head = TemporalHead.load(tmp_path / "head.safetensors")
    export_graph("head", HeadGraph(head).eval(), tmp_path, encoders=encoders(1024))
    audio, vision, text = (tensor.numpy() for tensor in golden_head_inputs())
    inputs = (audio, vision, text, text)
    with np.load(GOLDEN / "dev_head.npz") as golden:
        expected = [golden[f"L{blocks}_{name}"] for name in ("sim_audio", "sim_vision", "logits")]
    for theirs, ours in zip(expected, run(tmp_path / "head.onnx", *inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_scores_are_0_where_no_class_stands_out(exported_bundle: Path) -> None:
    """An optimizer that treats 1e-8 as 0 turns them into NaN."""
    rng = np.random.default_rng(0)
    audio, vision = rng.standard_normal((2, 1, 4, SIZE)).astype(np.float32)
    for text in (np.zeros((3, SIZE), np.float32), np.ones((1, SIZE), np.float32)):
        *_, score = run(exported_bundle / "head.onnx", audio, vision, text, text)
        assert (score == 0).all()


def test_the_head_agrees_with_the_runtime_in_numpy(exported_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    audio, vision = rng.standard_normal((2, 2, 7, SIZE)).astype(np.float32)
    text = rng.standard_normal((5, SIZE)).astype(np.float32)
    audio_similarity, vision_similarity, score = run(exported_bundle / "head.onnx", audio, vision, text, text)
    np.testing.assert_allclose(score, fused_score(audio_similarity, vision_similarity), atol=1e-6)


def test_samples_have_the_shapes_of_real_input() -> None:
    frames = [prepare_frame(frame) for frame in sample_frames().values()]
    waves = [prepare_waveform(wave) for wave in sample_waveforms().values()]
    frames += [prepare_frame(random_frame(seed)) for seed in range(6)]
    waves += [prepare_waveform(random_waveform(seed)) for seed in range(6)]
    assert len({frame.tobytes() for frame in frames}) == len(frames) >= 6
    assert len({wave.tobytes() for wave in waves}) == len(waves) >= 6
    assert all(np.abs(wave).max() <= 1.5 for wave in sample_waveforms().values())
    assert all(1e-4 < np.abs(random_waveform(seed)).max() <= 1 for seed in range(20))
    assert all(random_frame(seed).std() > 2 for seed in range(20))


def text_embeddings() -> TextEmbeddings:
    rows = np.random.default_rng(1).standard_normal((5, SIZE)).astype(np.float32)
    return TextEmbeddings.shared(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_an_unaltered_head_passes(head: Path) -> None:
    inputs = head_inputs(text_embeddings())
    assert {case[0].shape[:2] for case in inputs.values()} >= {(b, t) for b in (1, 3) for t in (1, 2, 10, 13)}
    check = check_graph(head, reference("head", head_graph(), inputs))
    assert check.cases == len(inputs)
    assert 0 < check.max_abs_difference < 1e-5


@pytest.mark.parametrize("value", [1e-3, np.nan, np.inf])
def test_one_altered_weight_is_detected(tmp_path: Path, head: Path, value: float) -> None:
    model = onnx.load(head)
    tensor = next(t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2)
    array = numpy_helper.to_array(tensor).copy()
    array[0] += value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_graph(tmp_path / "altered.onnx", reference("head", head_graph(), head_inputs(text_embeddings())))


def test_a_lost_epsilon_is_detected(tmp_path: Path, head: Path) -> None:
    model = onnx.load(head)
    for tensor in model.graph.initializer:
        if not tensor.dims and tensor.data_type == 1 and 0 < numpy_helper.to_array(tensor) < 1e-7:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32), tensor.name))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_graph(tmp_path / "altered.onnx", reference("head", head_graph(), head_inputs(text_embeddings())))


def test_a_file_that_does_not_load_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "head.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="cannot run the head graph"):
        check_graph(tmp_path / "head.onnx", reference("head", head_graph(), head_inputs(text_embeddings())))


def test_an_operation_unknown_to_onnx_is_an_export_error(tmp_path: Path) -> None:
    class Strange(torch.nn.Module):
        def forward(self, audio: torch.Tensor, vision: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            return audio if float(audio.sum()) > 0 else vision

    with pytest.raises(ExportError, match="head graph"):
        export_graph("head", Strange(), tmp_path, encoders=encoders(SIZE))
    assert not list(tmp_path.iterdir())


def test_example_inputs_never_have_size_1() -> None:
    for graph in graph_specs(encoders(SIZE)):
        assert all(tensor.shape[0] > 1 for tensor in example_inputs(graph, encoders(SIZE)))
