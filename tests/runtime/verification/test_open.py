"""Opening a bundle's backend: what was built is compared, what is not verified is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.media_factory import make_clip

from ovavel.runtime.backends import Backend, BuildsEngines, BuiltEngine, open_backend
from ovavel.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import DeviceError, UnverifiedError
from ovavel.runtime.session import Session
from ovavel.runtime.verification import open as module
from ovavel.runtime.verification.gates import find_gate
from ovavel.runtime.verification.open import look_up, open_compared, open_verified


class Built:
    """ONNX Runtime in the place of a backend that builds engines."""

    def __init__(self, backend: Backend, *, built_now: bool) -> None:
        self._backend = backend
        engine = BuiltEngine(precision="fp32", sha256="0" * 64, products=1, in_precision=1, built_now=built_now)
        self.engines: Mapping[Graph, BuiltEngine] = {"vision": engine}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """One that no gate verifies."""
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    content["parity"].pop("gates")
    (tiny_bundle / "manifest.json").write_text(json.dumps(content))
    return Bundle.open(tiny_bundle)


def builds(monkeypatch: pytest.MonkeyPatch, *, built_now: bool) -> None:
    def opened(bundle: Bundle, *, progress: object, **options: Any) -> Any:
        return Built(open_backend(bundle, device="cpu", threads=1, **options), built_now=built_now)

    monkeypatch.setattr(module, "open_backend", opened)


def test_newly_built_engines_are_compared(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    builds(monkeypatch, built_now=False)
    backend = open_compared(bundle)
    assert isinstance(backend, BuildsEngines)
    assert find_gate(bundle, backend.info) is None
    backend.close()
    with pytest.raises(UnverifiedError, match="has not been verified"):
        open_verified(bundle)
    builds(monkeypatch, built_now=True)
    stages: list[str] = []
    verified = open_verified(bundle, progress=lambda stage, *_: stages.append(stage))
    assert "comparing vision" in stages
    assert verified.gate is not None
    assert verified.gate.passed
    assert verified.here
    assert verified.text.startswith("verified against PyTorch fp32")
    verified.backend.close()


def test_a_refused_or_failing_backend_is_closed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = OnnxRuntimeBackend.close
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda self: (closed.append(self.info.name), close(self))[1])
    with pytest.raises(UnverifiedError):
        open_verified(bundle, device="cpu", threads=1)
    assert closed == ["onnxruntime"]

    def broken(*_: object) -> None:
        raise DeviceError("the GPU is gone")

    builds(monkeypatch, built_now=True)
    monkeypatch.setattr(module, "self_check", broken)
    with pytest.raises(DeviceError, match="gone"):
        open_compared(bundle)
    assert len(closed) == 2


def test_the_gate_is_looked_up_once(exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=2, fps=5)
    bundle = Bundle.open(exported_bundle)
    hashed: list[object] = []
    graphs_sha256 = Bundle.graphs_sha256

    def counted(self: Bundle, precision: Mapping[Graph, str]) -> str:
        hashed.append(precision)
        return graphs_sha256(self, precision)

    monkeypatch.setattr(Bundle, "graphs_sha256", counted)
    verified = open_verified(bundle, device="cpu", threads=1)
    assert len(hashed) == 1
    for _ in range(2):
        with Session(bundle, clip, backend=verified) as session:
            assert session.info.gate is verified.gate
            assert not session.info.gate_checked_here
    assert len(hashed) == 1
    assert look_up(bundle, verified.backend) == verified
    verified.backend.close()
