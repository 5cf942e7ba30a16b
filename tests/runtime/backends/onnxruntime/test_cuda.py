"""ONNX Runtime on an NVIDIA GPU, where there is one; and what of it runs on any machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.backends.onnxruntime.cuda import BATCHES, FixedBatches, check_placement, cuda_options
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.verification.requirements import requirement

needs_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs an NVIDIA GPU"
)


def session(bundle: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(str(bundle / "audio.onnx"), options, providers=["CPUExecutionProvider"])


def log_mels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 128, 204)).astype(np.float32)


@pytest.fixture
def batches(exported_bundle: Path) -> Iterator[FixedBatches]:
    """On a CPU, which does all but record."""
    fixed = FixedBatches(session(exported_bundle), "cpu", 0)
    yield fixed
    fixed.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 19])
def test_any_batch_goes_through_the_fixed_ones(exported_bundle: Path, batches: FixedBatches, count: int) -> None:
    (expected,) = session(exported_bundle).run(None, {"log_mel": log_mels(count)})
    np.testing.assert_allclose(batches.run(log_mels(count)), expected, atol=1e-6)


def test_an_answer_stays_when_the_buffers_are_used_again(batches: FixedBatches) -> None:
    first = batches.run(log_mels(2, seed=1))
    kept = first.copy()
    second = batches.run(log_mels(2, seed=2))
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_threads_do_not_meet_in_the_buffers(batches: FixedBatches) -> None:
    inputs = [log_mels(1 + i % 3, seed=i) for i in range(6)]
    expected = [batches.run(each) for each in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(5) if not np.allclose(batches.run(inputs[i]), expected[i], atol=1e-6))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "array",
    [np.zeros((1, 1, 128, 100), np.float32), np.zeros((1, 1, 128, 204)), np.zeros((0, 1, 128, 204), np.float32)],
)
def test_an_input_of_the_wrong_shape_or_type_is_refused(batches: FixedBatches, array: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"float32 \(B, 1, 128, 204\)"):
        batches.run(array)


def test_nodes_that_run_elsewhere_are_named(exported_bundle: Path) -> None:
    opened = session(exported_bundle)
    check_placement(opened, "CPUExecutionProvider", "audio.onnx")
    with pytest.raises(DeviceError, match=r"CUDA\w+ does not run all of audio\.onnx: CPU\w+ runs .*MatMul"):
        check_placement(opened, "CUDAExecutionProvider", "audio.onnx")


def test_fp32_is_fp32() -> None:
    assert cuda_options(1, record=True)["use_tf32"] == "0"
    assert cuda_options(1, record=True)["device_id"] == "1"


@pytest.fixture(scope="module")
def three_precisions(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path) -> Bundle:
    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig

    out = tmp_path_factory.mktemp("cuda") / "bundle"
    config = ImageBindConfig.tiny()
    return write_bundle(
        BundleContents(tiny_weights, ["dog"], head=tiny_head, config=config),
        out,
        precisions=["fp32", "fp16", "bf16", "int8-any"],
    )


@pytest.mark.slow
@pytest.mark.proof
def test_every_operator_has_a_cuda_kernel_in_the_oldest_version_that_is_allowed(three_precisions: Bundle) -> None:
    """A kernel is for the versions of an operator from `first` to `last`, or for `first` alone where that is open."""
    onnx = pytest.importorskip("onnx")
    golden = Path(__file__).parents[3] / "golden" / "onnxruntime_gpu.json"
    kernels = json.loads(golden.read_text())["kernels"]
    missing, seen = set(), set()
    for graph, files in three_precisions.manifest.graphs.items():
        for precision in {"fp32", "fp16", "bf16"} & files.keys():
            model = onnx.load(three_precisions.path / files[precision], load_external_data=False)
            ((domain, opset),) = ((each.domain, each.version) for each in model.opset_import)
            for name in {node.op_type for node in model.graph.node}:
                version = onnx.defs.get_schema(name, opset, domain).since_version
                spans = [(first, last or first) for first, last in kernels.get(name, ())]
                seen.add((name, version))
                if not any(first <= version <= last for first, last in spans):
                    missing.add((graph, precision, name, version))
    assert not missing
    assert {("ReduceMax", 20), ("ReduceMin", 20)} <= seen, "why the head needs OLDEST_FOR_HEAD"


def answers(backend: Backend, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    vision = backend.vision(rng.standard_normal((count, 3, 224, 224)).astype(np.float32))
    audio = backend.audio(log_mels(count))
    return (
        vision,
        audio,
        backend.head(
            audio[None], vision[None], TextEmbeddings.shared(np.eye(3, vision.shape[1], dtype=np.float32))
        ).score,
    )


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_gpu_gives_what_a_cpu_gives(three_precisions: Bundle, precision: str, cuda_graphs: bool) -> None:
    reference = open_backend(three_precisions, device="cpu", precision="fp32")
    backend = open_backend(three_precisions, device="cuda", precision=precision, cuda_graphs=cuda_graphs)
    assert (backend.info.engine, backend.info.device) == ("onnxruntime-cuda", "cuda:0")
    assert backend.info.precision == {"vision": precision, "audio": precision, "head": "fp32"}
    backend.warm_up()
    for count in (1, 3, BATCHES[-1] + 1):
        for theirs, ours in zip(answers(reference, count)[:2], answers(backend, count)[:2], strict=True):
            assert (theirs * ours).sum(axis=1).min() >= requirement(precision).min_cosine
    backend.close()
    reference.close()


@needs_gpu
def test_a_gpu_runs_fp16_by_default_and_never_int8(three_precisions: Bundle) -> None:
    backend = open_backend(three_precisions, device="cuda")
    assert backend.info.precision["vision"] == "fp16"
    backend.close()
    with pytest.raises(UsageError, match="does not run int8"):
        open_backend(three_precisions, device="cuda", precision="int8")


@needs_gpu
def test_vision_and_audio_at_the_same_time_are_as_one_after_the_other(three_precisions: Bundle) -> None:
    backend = open_backend(three_precisions, device="cuda")
    frames = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    vision, audio = backend.vision(frames), backend.audio(log_mels(2))
    wrong: list[str] = []

    def repeat(name: str, expected: np.ndarray, array: np.ndarray) -> None:
        wrong.extend(name for _ in range(50) if not np.array_equal(getattr(backend, name)(array), expected))

    threads = [
        threading.Thread(target=repeat, args=each)
        for each in (("vision", vision, frames), ("audio", audio, log_mels(2)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    backend.close()
