"""How engines are run: pieces of a batch, padding, CUDA graphs, threads, memory; on a simulated GPU."""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
import threading
import weakref
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated_gpu import SimulatedCuda, SimulatedEngine, SimulatedKernels, SimulatedTensorRT

from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.tensorrt import cuda as cuda_module
from ovavel.runtime.backends.tensorrt.build import profiles_of
from ovavel.runtime.backends.tensorrt.cuda import Cuda
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, Engine, EngineFor, Evidence
from ovavel.runtime.backends.tensorrt.runner import EngineRunner, split_batch
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.manifest import FileEntry
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DeviceError, EngineError, UsageError

BATCHES = (1, 4)
SHAPES = {"vision": (3, 224, 224), "audio": (1, 128, 204)}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    simulated = SimulatedCuda()
    monkeypatch.setattr(cuda_module, "cuda_runtime", lambda library: simulated)
    return simulated


def open_runner(gpu: SimulatedCuda, bundle: Path, graph: str, folder: Path) -> EngineRunner:
    made_for = EngineFor(
        library="tensorrt",
        version="1",
        platform="any",
        gpu=gpu.name,
        compute_capability="8.9",
        graph=graph,
        precision="fp32",
        sources=(),
        options=BuildOptions(batches=BATCHES),
    )
    inputs = {"vision": {"frames": (-1, *SHAPES["vision"])}, "audio": {"log_mel": (-1, *SHAPES["audio"])}}.get(
        graph, {"audio": (-1, -1, 32), "vision": (-1, -1, 32), "audio_text": (-1, 32), "vision_text": (-1, 32)}
    )
    onnx = bundle / f"{graph}.onnx"
    simulated = SimulatedEngine(gpu, onnx, profiles_of(made_for, inputs))
    (folder / "engine.plan").write_bytes(graph.encode())
    module = SimulatedTensorRT({graph.encode(): simulated})
    library = Library(
        name="tensorrt", title="TensorRT", version="1", module=module, logger=None, errors=deque(), layers=[]
    )
    entry = FileEntry(sha256="0" * 64, bytes=0)
    evidence = Evidence(products={}, found=None, read_from="network")
    engine = Engine(made_for=made_for, plan=entry, evidence=evidence, build_s=0)
    return EngineRunner(folder, engine, library, Cuda("tensorrt", 0))


@given(st.integers(0, 100), st.sets(st.integers(1, 32), min_size=1))
def test_every_input_goes_into_exactly_one_piece(count: int, batches: set[int]) -> None:
    pieces = split_batch(count, tuple(batches))
    assert set(pieces) <= batches
    assert sum(pieces) >= count
    assert sum(pieces[:-1]) < max(count, 1)


@pytest.mark.parametrize(
    ("count", "pieces"), [(1, [1]), (3, [4]), (5, [4, 1]), (9, [16]), (16, [16]), (21, [16, 4, 1])]
)
def test_padding_is_kept_small(count: int, pieces: list[int]) -> None:
    assert split_batch(count, (1, 4, 16)) == pieces


@pytest.mark.parametrize("graph", ["vision", "audio"])
def test_batches_of_any_size_give_what_onnx_runtime_gives(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, graph: str
) -> None:
    runner = open_runner(gpu, exported_bundle, graph, tmp_path)
    reference = open_backend(Bundle.open(exported_bundle), device="cpu", threads=1, graphs=(graph,))
    random = np.random.default_rng(0)
    for count in (1, 3, 4, 1, 6, 1):
        inputs = random.standard_normal((count, *SHAPES[graph])).astype(np.float32)
        (answer,) = runner.run([inputs])
        np.testing.assert_allclose(answer, getattr(reference, graph)(inputs), atol=2e-6)
    assert runner.captured == 2
    assert gpu.launches == 6  # of eight pieces, all but the first of each size
    runner.close()
    runner.close()
    assert gpu.left() == 0


def test_the_head_takes_any_number_of_segments_and_classes(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path
) -> None:
    runner = open_runner(gpu, exported_bundle, "head", tmp_path)
    reference = open_backend(Bundle.open(exported_bundle), device="cpu", graphs=("head",))
    random = np.random.default_rng(1)
    for clips, segments, classes in ((1, 10, 4), (1, 10, 4), (1, 10, 4), (1, 3, 4), (6, 10, 70), (1, 10, 4)):
        sizes = (clips, segments, 32), (clips, segments, 32), (classes, 32), (classes, 32)
        inputs = [random.standard_normal(size).astype(np.float32) for size in sizes]
        for answer, expected in zip(
            runner.run(inputs), reference.head(*inputs[:2], TextEmbeddings(*inputs[2:])), strict=True
        ):
            np.testing.assert_allclose(answer, expected, atol=2e-5)
    assert gpu.launches == 2
    runner.close()
    assert gpu.left() == 0


def test_what_the_engine_does_not_take_is_refused(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    runner = open_runner(gpu, exported_bundle, "vision", tmp_path)
    for frames in (
        np.zeros((1, 3, 100, 224), np.float32),
        np.zeros((1, 3, 224, 224)),
        np.zeros((3, 224, 224), np.float32),
        np.zeros((0, 3, 224, 224), np.float32),
    ):
        with pytest.raises(UsageError, match=r"does not take frames .*\(any, 3, 224, 224\) float32"):
            runner.run([frames])


def test_the_head_refuses_more_than_it_was_built_for(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    runner = open_runner(gpu, exported_bundle, "head", tmp_path)
    segments, classes = np.zeros((1, 10, 32), np.float32), np.zeros((4, 32), np.float32)
    with pytest.raises(UsageError, match=r"does not take audio_text \(5000, 32\)"):
        runner.run([segments, segments, np.zeros((5000, 32), np.float32), classes])
    with pytest.raises(UsageError, match=r"does not take audio \(1, 11, 32\).*\(any, 1 to 10, 32\)"):
        runner.run([np.zeros((1, 11, 32), np.float32), segments, classes, classes])
    with pytest.raises(UsageError, match="same clips and seconds"):
        runner.run([segments, segments[:, :5], classes, classes])
    with pytest.raises(UsageError, match="as many texts"):
        runner.run([segments, segments, classes, classes[:3]])


def test_threads_take_turns(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    runner = open_runner(gpu, exported_bundle, "vision", tmp_path)
    frames = np.random.default_rng(3).standard_normal((3, 1, *SHAPES["vision"])).astype(np.float32)
    expected = [runner.run([each])[0] for each in frames]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(5) if not np.array_equal(runner.run([frames[i]])[0], expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_after_a_gpu_failure_everything_is_freed_and_the_first_error_reported(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = open_runner(gpu, exported_bundle, "audio", tmp_path)
    sound = np.ones((1, *SHAPES["audio"]), np.float32)
    for _ in range(2):
        runner.run([sound])
    assert runner.captured
    gpu.broken = True

    def work() -> None:
        try:
            runner.run([sound])
        finally:
            runner.close()

    with caplog.at_level(logging.WARNING), pytest.raises(DeviceError, match="cudaStreamSynchronize failed"):
        work()
    assert gpu.left() == 0
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "could not free all memory of Simulated GPU"
    ]


def test_without_cuda_graphs_it_runs_and_says_so(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.capture_works = False
    runner = open_runner(gpu, exported_bundle, "audio", tmp_path)
    sound = np.ones((1, *SHAPES["audio"]), np.float32)
    with caplog.at_level(logging.WARNING):
        answers = [runner.run([sound])[0] for _ in range(3)]
    assert "without a CUDA graph" in caplog.text
    assert len(caplog.records) == 1
    assert runner.captured == 0
    np.testing.assert_array_equal(answers[0], answers[2])


@pytest.mark.parametrize("memory_bytes", [3_000_000, 2 * 4 * 3 * 224 * 224 + 100])
def test_too_little_memory_is_a_clear_error_and_leaves_nothing(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, memory_bytes: int
) -> None:
    gpu.memory_bytes = memory_bytes  # for one batch size of two, or for a slot's input and not its output
    with pytest.raises(DeviceError, match="cudaErrorMemoryAllocation"):
        open_runner(gpu, exported_bundle, "vision", tmp_path)
    assert gpu.left() == 0


def test_a_plan_that_the_library_refuses_is_an_engine_error(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedTensorRT, "Runtime", lambda *_: SimulatedTensorRT({}) and _Refusing())
    with pytest.raises(EngineError, match=r"cannot load .*engine\.plan on Simulated GPU.*--overwrite"):
        open_runner(gpu, exported_bundle, "vision", tmp_path)


class _Refusing:
    def deserialize_cuda_engine(self, plan: object) -> None:
        return None


def test_a_missing_driver_is_reported(gpu: SimulatedCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SimulatedCuda) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")  # as cuda-python 12 does

    monkeypatch.setattr(SimulatedCuda, "cudaGetDeviceCount", fail)
    with pytest.raises(DeviceError, match=r"tensorrt needs an NVIDIA GPU, and none is available: .*libcuda"):
        Cuda("tensorrt", 0)


def test_every_call_is_one_that_cuda_python_has() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    source = Path(cuda_module.__file__).read_text()
    names = set(re.findall(r'(?:call|give_back)\("(\w+)"', source)) | set(re.findall(r"_runtime\.(\w+)", source))
    assert len(names) > 15
    assert not [name for name in names if not hasattr(runtime, name)]


def test_there_is_no_second_gpu(gpu: SimulatedCuda) -> None:
    with pytest.raises(DeviceError, match=r"no device 'cuda:1': this machine has 1"):
        Cuda("tensorrt", 1)


def test_a_recording_that_fails_leaves_no_graph(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    runner = open_runner(gpu, exported_bundle, "audio", tmp_path)
    gpu.starts_while_recording = False
    audio = np.zeros((1, *SHAPES["audio"]), np.float32)
    runner.run([audio])
    runner.run([audio])
    runner.close()
    assert gpu.left() == 0


def test_an_address_that_is_refused_is_an_error(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    gpu.takes_addresses = False
    with pytest.raises(DeviceError, match="does not take the buffer of log_mel"):
        open_runner(gpu, exported_bundle, "audio", tmp_path)
    assert gpu.left() == 0


def test_closing_selects_the_gpu(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    runner = open_runner(gpu, exported_bundle, "audio", tmp_path)
    gpu.current = None  # as in another thread
    runner.close()
    assert gpu.current == 0


def test_changing_shapes_are_recorded_ever_less_often(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(gpu, exported_bundle, "head", tmp_path)
    recorded = []
    instantiate = gpu.cudaGraphInstantiate
    monkeypatch.setattr(gpu, "cudaGraphInstantiate", lambda *given: recorded.append(1) or instantiate(*given))
    text = np.zeros((4, 32), np.float32)
    for segments in (10, 3) * 8:
        both = np.zeros((1, segments, 32), np.float32)
        for _ in range(3):
            runner.run([both, both, text, text])
    assert len(recorded) == 2  # after one run, then after two; a third would take four
    runner.close()
    assert gpu.left() == 0


def test_runtime_configurations_live_as_long_as_their_contexts(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Config(SimpleNamespace):
        pass

    made: list[weakref.ref[Config]] = []

    def create(engine: SimulatedEngine) -> Config:
        config = Config(
            create_runtime_cache=SimulatedKernels,
            set_execution_context_allocation_strategy=lambda strategy: None,
            set_runtime_cache=lambda cache: True,
        )
        made.append(weakref.ref(config))
        return config

    monkeypatch.setattr(SimulatedEngine, "create_runtime_config", create)
    monkeypatch.setattr(Library, "rtx", True)
    rtx = SimpleNamespace(WHOLE_GRAPH_CAPTURE=1, NONE=0)
    for name in ("CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy"):
        monkeypatch.setattr(SimulatedTensorRT, name, rtx, raising=False)
    runner = open_runner(gpu, exported_bundle, "audio", tmp_path)
    gc.collect()
    assert made
    assert all(config() is not None for config in made)
    runner.close()


def test_a_gpu_that_tensorrt_rtx_does_not_build_for_is_refused_before_anything_is_read(
    gpu: SimulatedCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(name=b"NVIDIA H100\0", major=9, minor=0, totalGlobalMem=2**30)
    monkeypatch.setattr(gpu, "cudaGetDeviceProperties", lambda index: (0, properties))
    module = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__={"SM89": 0, "SM120": 1}))  # no Builder
    library = Library(
        name="tensorrt-rtx", title="TensorRT-RTX", version="1", module=module, logger=None, errors=deque(), layers=[]
    )
    unread: Any = None
    with pytest.raises(UsageError, match=r"capabilities 8\.9, 12\.0, not 9\.0; use TensorRT or ONNX Runtime"):
        provide_engines(
            unread, library, {"head": "fp32"}, cuda=Cuda("tensorrt-rtx", 0), options=None, root=tmp_path / "engines"
        )
    assert not (tmp_path / "engines").exists()
    dataclasses.replace(library, name="tensorrt").check_capability("9.0")
