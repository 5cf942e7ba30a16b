"""The engines on a real GPU, against ONNX Runtime on the CPU; skipped where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.backends.tensorrt.cuda import Cuda
from ovavel.runtime.backends.tensorrt.library import EXTRAS, load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.verification.gates import find_gate
from ovavel.runtime.verification.open import open_compared

pytestmark = pytest.mark.timeout(600)

SHAPES = {"vision": (3, 224, 224), "audio": (1, 128, 204)}


@pytest.fixture(scope="module", params=sorted(EXTRAS))
def library(request: pytest.FixtureRequest) -> str:
    name = request.param
    if find_spec(name.replace("-", "_")) is None:
        pytest.skip(f"{name} is not installed")
    try:
        gpu = Cuda(name, 0).gpu
    except OvavelError as error:
        pytest.skip(str(error))
    capabilities = load_library(name).capabilities
    if capabilities and gpu.compute_capability not in capabilities:
        pytest.skip(f"{name} does not build for {gpu.name}")
    return name


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of engines and gates for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("engines")


def opened(bundle: Path, library: str, engines: Path, **options: object) -> Backend:
    build = BuildOptions(batches=(1, 4), workspace_mb=256)
    return open_compared(Bundle.open(bundle), name=library, options=build, engines=engines, **options)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_fp32_gives_what_onnx_runtime_gives(exported_bundle: Path, library: str, engines: Path) -> None:
    backend = opened(exported_bundle, library, engines, precision="fp32")
    reference = open_backend(Bundle.open(exported_bundle), device="cpu", precision="fp32")
    backend.warm_up()
    random = np.random.default_rng(0)
    for graph, shape in SHAPES.items():
        for count in (1, 1, 1, 3, 4, 4, 4, 9, 1):  # the first run, the CUDA graph, padding, pieces, and back
            inputs = random.standard_normal((count, *shape)).astype(np.float32)
            answer, expected = getattr(backend, graph)(inputs), getattr(reference, graph)(inputs)
            assert cosines(answer, expected).min() > 0.999999
            np.testing.assert_allclose(answer, expected, atol=1e-5)
    size = Bundle.open(exported_bundle).manifest.encoders.vision.embedding_size
    for clips, segments, classes in ((1, 10, 4), (1, 10, 4), (1, 10, 4), (1, 3, 4), (5, 10, 70), (1, 10, 4)):
        sizes = (clips, segments, size), (clips, segments, size), (classes, size), (classes, size)
        inputs = [random.standard_normal(each).astype(np.float32) for each in sizes]
        inputs = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in inputs]
        text = TextEmbeddings(*inputs[2:])
        for answer, expected in zip(backend.head(*inputs[:2], text), reference.head(*inputs[:2], text), strict=True):
            np.testing.assert_allclose(answer, expected, atol=1e-4)
    backend.close()


def test_new_engines_are_compared_with_the_golden_outputs(exported_bundle: Path, library: str, tmp_path: Path) -> None:
    backend = opened(exported_bundle, library, tmp_path, precision="fp32")
    gate = find_gate(Bundle.open(exported_bundle), backend.info)
    backend.close()
    assert gate
    assert gate.passed, gate.failures


def test_vision_and_audio_run_at_the_same_time(exported_bundle: Path, library: str, engines: Path) -> None:
    backend = opened(exported_bundle, library, engines, precision="fp32")
    backend.warm_up()
    random = np.random.default_rng(1)
    inputs = {graph: random.standard_normal((1, *shape)).astype(np.float32) for graph, shape in SHAPES.items()}
    expected = {graph: getattr(backend, graph)(each) for graph, each in inputs.items()}
    wrong: list[str] = []

    def work(graph: str) -> None:
        answers = [getattr(backend, graph)(inputs[graph]) for _ in range(50)]
        wrong.extend(graph for answer in answers if not np.array_equal(answer, expected[graph]))

    workers = [threading.Thread(target=work, args=(graph,)) for graph in ("vision", "audio", "vision")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    backend.close()
    assert not wrong


def test_the_second_start_builds_nothing(exported_bundle: Path, library: str, engines: Path) -> None:
    opened(exported_bundle, library, engines, precision="fp32").close()
    reported: list[str] = []
    opened(
        exported_bundle, library, engines, precision="fp32", progress=lambda stage, *_: reported.append(stage)
    ).close()
    assert not reported
