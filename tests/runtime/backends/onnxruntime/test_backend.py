"""The ONNX Runtime backend, on small graphs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.runtime.small_graphs import SIZE

from ovavel.runtime import install
from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime.backend import auto_device
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import BundleError, DeviceError, MissingExtraError, UsageError
from ovavel.runtime.install import RUNTIMES, install_command
from ovavel.runtime.system.hardware import physical_cores


def test_it_runs_the_requested_graphs_and_reports_them(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", threads=1, graphs=("vision", "head"))
    assert (backend.info.device, backend.info.provider) == ("cpu", "CPUExecutionProvider")
    assert backend.info.precision == {"vision": "fp32", "head": "fp32"}
    assert backend.info.threads == 1
    assert backend.info.versions["onnxruntime"]
    backend.warm_up()
    frames = np.random.default_rng(1).uniform(0.1, 1, (5, 3, 224, 224)).astype(np.float32)
    together = backend.vision(frames)
    assert together.shape == (5, SIZE)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([backend.vision(f[None]) for f in frames]), together, atol=1e-6)


def test_the_head_keeps_its_senses_apart(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("head",))
    r = np.random.default_rng(2)
    audio, vision, text = (r.standard_normal(s).astype(np.float32) for s in ((2, 4, SIZE), (2, 4, SIZE), (3, SIZE)))
    output = backend.head(audio, vision, TextEmbeddings.shared(text))
    np.testing.assert_allclose(output.audio_similarity, audio @ text.T, atol=1e-5)
    np.testing.assert_allclose(output.vision_similarity, vision @ text.T, atol=1e-5)
    np.testing.assert_allclose(output.score, output.audio_similarity * output.vision_similarity, atol=1e-5)


def test_several_threads_may_call_it(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", threads=2, graphs=("vision",))
    frames = np.random.default_rng(3).uniform(0.1, 1, (4, 1, 3, 224, 224)).astype(np.float32)
    expected = [backend.vision(f) for f in frames]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(20) if not np.array_equal(backend.vision(frames[i]), expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_graph_that_was_not_opened_is_named(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("head",))
    with pytest.raises(UsageError, match=r"vision.*holds head"):
        backend.vision(np.zeros((1, 3, 224, 224), np.float32))
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.head(*np.zeros((2, 1, 1, SIZE), np.float32), TextEmbeddings.shared(np.zeros((1, SIZE), np.float32)))


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 3, 100, 224), np.float32), np.zeros((1, 3, 224, 224)), np.zeros((3, 224, 224), np.float32)]
)
def test_an_input_of_the_wrong_shape_or_type_is_refused(bundle: Bundle, frames: np.ndarray) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("vision",))
    with pytest.raises(UsageError) as caught:
        backend.vision(frames)
    assert f"{frames.shape} {frames.dtype}" in str(caught.value)


def test_a_graph_that_the_bundle_lacks_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no text graph"):
        open_backend(bundle, device="cpu", graphs=("text",))


def installed_are(monkeypatch: pytest.MonkeyPatch, *runtimes: str) -> None:
    """Of the distributions of ONNX Runtime, `runtimes` alone seem to be installed."""
    real = install.distributions
    monkeypatch.setattr(
        install, "distributions", lambda name: real(name=name) if name not in RUNTIMES else [name] * (name in runtimes)
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu"])
def test_a_broken_library_is_not_reported_as_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))  # as left where its twin was removed
    installed_are(monkeypatch, runtime)
    auto_device.cache_clear()
    with pytest.raises(DeviceError, match=r"cannot be loaded .*pip uninstall -y onnxruntime onnxruntime-gpu") as error:
        open_backend(bundle)
    assert f"[{RUNTIMES[runtime]}]" in str(error.value)


def test_threads_are_at_least_one(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="threads"):
        open_backend(bundle, device="cpu", threads=0, graphs=("head",))
    assert open_backend(bundle, device="cpu", graphs=("head",)).info.threads == physical_cores()
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))


def test_without_onnxruntime_the_install_command_is_shown(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    installed_are(monkeypatch)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("cpu"))):
        open_backend(bundle, graphs=("head",))


def test_onnx_runtime_sends_no_telemetry(exported_bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from ovavel.runtime.backends import open_backend; "
        "from ovavel.runtime.bundle.bundle import Bundle; "
        "open_backend(Bundle.open(sys.argv[1]), device='cpu', precision='fp32').warm_up()"
    )
    # Nothing else: it is silent by itself where a variable, one of a dozen, speaks of continuous integration.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program, str(exported_bundle)], env=environment, check=True)
    assert not list(tmp_path.iterdir())
