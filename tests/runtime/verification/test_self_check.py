"""A bundle checks itself: every stage, every batch size, where it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovavel.runtime.backends import Backend, BackendInfo, open_backend
from ovavel.runtime.backends.onnxruntime.backend import auto_device
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.verification.compare import STAGES
from ovavel.runtime.verification.gates import checked_here, find_gate, gate_text, require_gate, store_gate
from ovavel.runtime.verification.golden import Golden
from ovavel.runtime.verification.self_check import (
    _Checker,
    check_stages,
    graphs_to_check,
)

pytestmark = pytest.mark.usefixtures("own_store")


def test_an_exported_bundle_verifies_itself(exported_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(exported_bundle)
    (gate,) = bundle.manifest.parity.gates
    assert gate.passed
    assert gate.engine == "onnxruntime-cpu"
    assert set(gate.precision.items()) >= set(info.precision.items())
    assert gate.inputs >= 20
    assert min(gate.min_cosine.values()) >= 0.999999
    assert max(gate.max_abs_difference.values()) < 5e-6
    assert gate.decisions == 1.0
    assert find_gate(bundle, info) == gate == require_gate(bundle, info, allow_unverified=False)
    assert not checked_here(bundle, find_gate(bundle, info))
    assert gate_text(gate, here=True).startswith("verified against PyTorch fp32, cosine at least 0.99999")
    said = gate_text(gate, here=False)
    assert said.startswith("as PyTorch fp32 by the bundle's own record, cosine at least 0.99999")
    assert said.endswith("; not checked on this machine")
    store_gate(bundle, info, gate)
    assert checked_here(bundle, find_gate(bundle, info))


def test_every_stage_is_checked_and_progress_reported(exported_bundle: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    backend = open_backend(bundle, device="cpu", graphs=graphs_to_check(bundle))
    reported: list[float] = []
    check = check_stages(
        bundle, backend, lambda _what, done=None, total=1.0, note="": reported.append((done or 0) / total)
    )
    backend.close()
    assert tuple(each.stage for each in check.stages) == STAGES
    assert check.failed_stage is None
    assert reported == sorted(reported)
    assert reported[-1] == 1.0


class Batches:
    """A backend that takes three windows at once, and spoils sounds in batches of `spoilt`."""

    def __init__(self, backend: Backend, spoilt: int) -> None:
        self.backend, self.spoilt = backend, spoilt
        self.info = dataclasses.replace(backend.info, batch=3)
        self.sizes: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def audio(self, log_mels: np.ndarray) -> np.ndarray:
        self.sizes.add(len(log_mels))
        rows = self.backend.audio(log_mels)
        return -rows if len(log_mels) == self.spoilt else rows


@pytest.mark.parametrize("spoilt", [0, 1, 3])
def test_every_batch_size_in_use_is_checked(exported_bundle: Path, spoilt: int) -> None:
    bundle = Bundle.open(exported_bundle)
    backend = Batches(open_backend(bundle, device="cpu", threads=1), spoilt)
    reported: list[float] = []
    check = check_stages(
        bundle, backend, lambda _what, done=None, total=1.0, note="": reported.append((done or 0) / total)
    )  # type: ignore[arg-type]
    backend.close()
    assert backend.sizes >= {1, 3}
    assert reported == sorted(reported)
    off = [each.stage for each in check.stages if each.failure]
    assert off == (["audio", "decision"] if spoilt else [])


def test_decisions_are_checked_in_8_bits(exported_bundle: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    backend = Batches(open_backend(bundle, device="cpu", threads=1), 1)
    backend.info = dataclasses.replace(backend.info, precision={**backend.info.precision, "audio": "int8"})
    checker = _Checker(bundle, Golden.load(bundle), backend)  # type: ignore[arg-type]
    golden = checker.golden
    assert (golden.lead >= 0.3).any()
    assert checker._decision([golden.score]).failure is None
    assert "needs 95.0%" in (checker._decision([golden.score, -golden.score]).failure or "")
    backend.close()


def test_text_is_checked_where_it_runs(exported_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(exported_bundle)
    assert "text" in graphs_to_check(bundle)
    assert ("text" in graphs_to_check(bundle, device="auto")) == (auto_device() == "cpu")
    monkeypatch.setattr("ovavel.runtime.backends.onnxruntime.backend.auto_device", lambda: "cuda")
    assert graphs_to_check(bundle, device="auto") == ("vision", "audio", "head")
    assert graphs_to_check(bundle, device="cuda:0") == ("vision", "audio", "head")
    assert graphs_to_check(bundle, name="tensorrt", device="auto") == ("vision", "audio", "head")
