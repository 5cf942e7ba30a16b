"""The full backend: engines built by the real TensorRT-RTX, run on a simulated GPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from support.simulated_gpu import SimulatedCuda, SimulatedEngine, SimulatedKernels

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.backends.tensorrt import backend as backend_module
from ovavel.runtime.backends.tensorrt import cuda as cuda_module
from ovavel.runtime.backends.tensorrt.build import profiles_of
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, Engine
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, DeviceError, MissingExtraError, UnverifiedError
from ovavel.runtime.verification.gates import find_gate, require_gate
from ovavel.runtime.verification.open import open_compared

pytestmark = pytest.mark.slow

pytest.importorskip("tensorrt_rtx")

SMALL = BuildOptions(batches=(1, 2), workspace_mb=64)
INPUTS = {
    "vision": {"frames": (-1, 3, 224, 224)},
    "audio": {"log_mel": (-1, 1, 128, 204)},
    "text": {"tokens": (-1, 77)},
    "head": {"audio": (-1, -1, 32), "vision": (-1, -1, 32), "audio_text": (-1, 32), "vision_text": (-1, 32)},
}


class RunsOnSimulatedGpu:
    """The module `tensorrt_rtx`, but for loading and running engines."""

    nptype = staticmethod(lambda kind: kind)
    TensorIOMode = SimpleNamespace(INPUT="input")

    def __init__(self, module: Any, gpu: SimulatedCuda, bundle: Path, cache: Path) -> None:
        self._module, self._gpu, self._bundle, self._cache = module, gpu, bundle, cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def Runtime(self, logger: object) -> Any:  # noqa: N802
        def load(plan: Any) -> SimulatedEngine:
            sha256 = hashlib.sha256(plan).hexdigest()
            described = [msgspec.json.decode(p.read_bytes(), type=Engine) for p in self._cache.rglob("engine.json")]
            made_for = next(each.made_for for each in described if each.plan.sha256 == sha256)
            onnx = self._bundle / f"{made_for.graph}.onnx"
            return SimulatedEngine(self._gpu, onnx, profiles_of(made_for, INPUTS[made_for.graph]))

        return SimpleNamespace(deserialize_cuda_engine=load)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, exported_bundle: Path, tmp_path: Path) -> Iterator[SimulatedCuda]:
    """A simulated GPU in the place of this machine's, and an empty cache."""
    simulated = SimulatedCuda()
    real = load_library("tensorrt-rtx")
    module = RunsOnSimulatedGpu(real.module, simulated, exported_bundle, tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_module, "cuda_runtime", lambda library: simulated)
    monkeypatch.setattr(backend_module, "load_library", lambda name: dataclasses.replace(real, module=module))
    monkeypatch.setattr(backend_module, "version", lambda name: "13")
    yield simulated
    assert simulated.left() == 0


def opened(bundle: Path, **options: Any) -> Backend:
    return open_compared(Bundle.open(bundle), name="tensorrt-rtx", **{"options": SMALL, "precision": "fp32", **options})


def test_it_builds_compares_and_runs(gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path) -> None:
    reported: list[str] = []
    backend = opened(exported_bundle, progress=lambda stage, *_: reported.append(stage))
    info = backend.info
    assert (info.engine, info.device, info.provider) == ("tensorrt-rtx", "cuda:0", "TensorRT-RTX on Simulated GPU")
    assert info.precision == {"vision": "fp32", "audio": "fp32", "head": "fp32"}
    assert (info.batch, info.concurrent) == (2, True)
    assert {"tensorrt-rtx", "cuda-bindings", "CUDA driver", "plans"} == set(info.versions)
    assert {stage.split()[0] for stage in reported} >= {"building", "comparing"}
    assert require_gate(Bundle.open(exported_bundle), info, allow_unverified=False)

    backend.warm_up()
    assert len(list(tmp_path.rglob("kernels-Simulated-GPU.cache"))) == 3
    reference = open_backend(Bundle.open(exported_bundle), device="cpu", threads=1)
    frames = np.random.default_rng(0).standard_normal((3, 3, 224, 224)).astype(np.float32)
    np.testing.assert_allclose(backend.vision(frames), reference.vision(frames), atol=2e-6)
    backend.close()
    backend.close()


def test_the_second_time_it_only_loads(gpu: SimulatedCuda, exported_bundle: Path) -> None:
    opened(exported_bundle).close()
    reported: list[str] = []
    again = opened(exported_bundle, progress=lambda stage, *_: reported.append(stage), options=None)
    again.close()
    assert not reported
    assert find_gate(Bundle.open(exported_bundle), again.info)


def test_a_gate_counts_for_the_plans_it_was_made_with(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(exported_bundle)
    first = opened(exported_bundle)
    first.close()
    shutil.copytree(tmp_path / "ovavel" / "engines", tmp_path / "copied")
    graphs = ("head", "text", "vision", "audio")
    same = opened(exported_bundle, graphs=graphs, options=None)
    same.close()
    copied = opened(exported_bundle, engines=tmp_path / "copied")
    copied.close()
    for info in (same.info, copied.info):
        assert info.versions == first.info.versions
        assert find_gate(bundle, info)

    # Copied in, so that nobody compares them.
    provide_engines(
        bundle,
        load_library("tensorrt-rtx"),
        first.info.precision,
        cuda=None,
        compute_capability="8.9",
        options=BuildOptions(batches=(1,), workspace_mb=64),
        root=tmp_path / "others",
    )
    others = opened(exported_bundle, engines=tmp_path / "others", options=None)
    others.close()
    assert find_gate(bundle, others.info) is None
    with pytest.raises(UnverifiedError, match="has not been verified"):
        require_gate(bundle, others.info, allow_unverified=False)


def test_engines_that_disagree_are_refused(
    gpu: SimulatedCuda, exported_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = SimulatedCuda.array

    def wrong(self: SimulatedCuda, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = compute(self, address, shape, dtype)
        return array[..., ::-1] if shape[1:] == (1, 128, 204) else array  # sound backwards

    monkeypatch.setattr(SimulatedCuda, "array", wrong)
    backend = opened(exported_bundle)
    with pytest.raises(UnverifiedError, match=r"tensorrt-rtx in fp32 .* disagrees with PyTorch: audio"):
        require_gate(Bundle.open(exported_bundle), backend.info, allow_unverified=False)
    backend.close()


def test_compiled_kernels_are_released_before_their_engine(gpu: SimulatedCuda, exported_bundle: Path) -> None:
    backend = opened(exported_bundle)
    assert isinstance(backend, backend_module.TensorRTBackend)
    released: list[bool] = []
    for runner in backend._runners.values():
        assert runner._kernels
        weakref.finalize(runner._kernels, lambda runner=runner: released.append(runner._engine is not None))
    backend.close()
    assert released == [True, True, True]


def test_an_interrupted_comparison_frees_everything(gpu: SimulatedCuda, exported_bundle: Path) -> None:
    def interrupt(stage: str, share: float | None = None, *_: object) -> None:
        if stage.startswith("comparing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(exported_bundle, progress=interrupt)
    assert gpu.left() == 0


def test_localize_builds_on_first_use(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = Path(__file__).parents[4] / "eval" / "demo" / "assets" / "clip.mp4"
    arguments = ["localize", str(clip), "--bundle", str(exported_bundle), "--backend", "tensorrt-rtx"]
    assert main([*arguments, "--precision", "fp32", "--out", str(tmp_path / "out"), "--format", "json"]) == 0
    reported = capsys.readouterr()
    assert "building vision" in reported.err
    assert "tensorrt-rtx: verified against PyTorch fp32" in reported.out
    assert json.loads(next((tmp_path / "out").glob("*.json")).read_text())


def test_export_engine_keeps_what_was_compiled_for_the_first_start(
    gpu: SimulatedCuda, exported_bundle: Path, tmp_path: Path
) -> None:
    arguments = [
        "bundle",
        "engine",
        "--bundle",
        str(exported_bundle),
        "--library",
        "tensorrt-rtx",
        "--precision",
        "fp32",
    ]
    assert main([*arguments, "--batch", "1", "2"]) == 0
    kernels = list((tmp_path / "ovavel" / "engines").rglob("kernels-Simulated-GPU.cache"))
    assert len(kernels) == 3
    assert {each.read_bytes() for each in kernels} == {SimulatedKernels.CONTENT}


def test_errors_on_opening_are_reported(gpu: SimulatedCuda, exported_bundle: Path) -> None:
    with pytest.raises(DeviceError, match="tensorrt-rtx runs only on NVIDIA GPUs"):
        opened(exported_bundle, device="cpu")
    with pytest.raises(DeviceError, match=r"no device 'cuda:3'"):
        opened(exported_bundle, device="cuda:3")
    with pytest.raises(BundleError, match="has no bf16 vision graph"):
        opened(exported_bundle, precision="bf16")


def test_without_cuda_python_the_install_command_is_shown(
    exported_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError, match=r"needs cuda-python, .*pip install .*\[rtx\]"):
        opened(exported_bundle, engines=tmp_path)
    assert not list(tmp_path.iterdir())
