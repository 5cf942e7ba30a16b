"""OpenVINO beside ONNX Runtime: the same answers, what it computes in, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import BundleError, DeviceError, UsageError

pytest.importorskip("openvino")


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def test_it_answers_as_onnx_runtime_does(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    frames = random.standard_normal((3, 3, 224, 224)).astype(np.float32)
    log_mels = random.standard_normal((2, 1, 128, 204)).astype(np.float32)
    answers = []
    for name in ("openvino", "onnxruntime"):
        backend = open_backend(bundle, name=name, device="cpu", precision="fp32")
        backend.warm_up()
        vision, audio = backend.vision(frames), backend.audio(log_mels)
        segments = audio[None, [0, 1, 0]]
        head = backend.head(segments, vision[None], bundle.vocabulary.embeddings)
        answers.append((vision, audio, *head))
        backend.close()
        backend.close()
    for ours, theirs in zip(*answers, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_it_says_what_runs(bundle: Bundle) -> None:
    backend = open_backend(bundle, name="openvino", precision="fp32", threads=1)
    assert backend.info.engine == "openvino"
    assert backend.info.device == "cpu"
    assert backend.info.provider
    assert dict(backend.info.precision) == {"vision": "fp32", "audio": "fp32", "head": "fp32"}
    assert "openvino" in backend.info.versions
    backend.close()


def test_other_devices_and_precisions_are_refused(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="runs on the device cpu here, not on 'cuda'"):
        open_backend(bundle, name="openvino", device="cuda")
    with pytest.raises(UsageError, match="openvino does not run int8; it runs bf16, fp32, int8-static"):
        open_backend(bundle, name="openvino", precision="int8")
    with pytest.raises(UsageError, match="threads must be from 1 to"):
        open_backend(bundle, name="openvino", threads=0)


def test_wrong_shapes_are_reported(bundle: Bundle) -> None:
    backend = open_backend(bundle, name="openvino", precision="fp32")
    with pytest.raises(UsageError, match="vision graph does not take"):
        backend.vision(np.zeros((1, 3, 100, 100), np.float32))
    backend.close()


def test_a_damaged_graph_is_reported(tmp_path: Path) -> None:
    from ovavel.runtime.backends.openvino import compile_graph
    from ovavel.runtime.bundle.hashed import read_graph

    (tmp_path / "vision.onnx").write_bytes(b"\x08\x0a")  # a model of version 10, and nothing else
    with pytest.raises(BundleError, match="OpenVINO cannot load"):
        compile_graph(read_graph(tmp_path / "vision.onnx"), "fp32", 1)


@pytest.mark.parametrize("chosen", [False, True])
def test_nothing_is_sent_to_its_vendor(chosen: bool, tmp_path: Path) -> None:
    """Its telemetry keeps an id of the user in the home folder; a program that imports it decides for itself."""
    code = "import sys; from ovavel.runtime.backends.openvino import load_openvino\n"
    code += "import openvino_telemetry\n" * chosen
    code += "load_openvino(); import openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    # CI: the telemetry that is chosen here sends nothing
    variables = {**os.environ, "HOME": str(tmp_path), "CI": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("openvino_telemetry" if chosen else "openvino.tools.ovc.telemetry_stub")
    assert chosen or not list(tmp_path.iterdir())
