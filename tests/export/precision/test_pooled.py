"""Pooled sound in a bundle: measured on real preparations, near the full encoder or refused, and never the default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.graphs import save_variant, traced
from ovavel.export.inputs import calibration_inputs, sense_inputs
from ovavel.export.precision.activations import observe_activations
from ovavel.export.verify import Reference, check_graph, check_pooled, reference
from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime.sessions import open_session
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.errors import PrecisionError
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, PatchTower
from ovavel.training.models.imagebind.pooled import PooledTower

TINY = ImageBindConfig.tiny()


def sound_tower(weights: Path) -> PatchTower:
    tower = ImageBind.load(weights, TINY, ("audio",)).towers["audio"]
    assert isinstance(tower, PatchTower)
    return tower


def full(tower: PatchTower) -> Reference:
    inputs = sense_inputs("audio", TINY.encoders, range(3))
    return reference("audio", tower, {name: (array[None],) for name, array in inputs.items()})


def test_graphs_compute_what_pooling_does_in_pytorch(tiny_weights: Path, tmp_path: Path) -> None:
    tower = sound_tower(tiny_weights)
    pooled, expected = PooledTower(tower).eval(), full(tower)
    model = traced("audio", pooled, encoders=TINY.encoders)
    seen = observe_activations(pooled, calibration_inputs("audio", TINY.encoders))
    inputs = np.concatenate([arrays[0] for arrays, _ in expected.cases.values()])
    theirs = pooled(torch.from_numpy(inputs)).detach().numpy()
    for precision, near in (("fp32-pooled", 1e-6), ("int8-any-pooled", 0.2)):
        file, *_ = save_variant(model, "audio", tmp_path, precision, seen)  # type: ignore[arg-type]
        check = check_graph(file, expected, precision)  # type: ignore[arg-type]
        assert check.max_abs_difference > 1e-4  # it is not the full encoder
        session = open_session(read_graph(file), None, 1)
        ours = session.run(None, {session.get_inputs()[0].name: inputs})[0]  # all in a batch
        assert np.abs(ours - theirs).max() < near, precision
    kinds = [
        node.op_type for node in onnx.load(tmp_path / "audio.int8-any-pooled.onnx", load_external_data=False).graph.node
    ]
    assert kinds.count("MultiHeadAttention") == TINY.audio.blocks
    assert "Softmax" not in kinds


def test_weights_that_need_all_tokens_are_refused(tiny_weights: Path) -> None:
    tower = sound_tower(tiny_weights)
    check = check_pooled(PooledTower(tower), full(tower), "int8-pooled")
    assert check.min_cosine is not None
    assert 0.9999 < check.min_cosine < 1
    torch.manual_seed(0)
    tower.positions[0, 1:] = 3 * torch.randn(228, 48)  # now a sound's twin has quite another one
    with pytest.raises(
        PrecisionError, match=r"full encoder's is 0\.98\d+ \(for \w+\), and at least 0\.998 .* nothing was"
    ):
        check_pooled(PooledTower(tower), full(tower), "int8-pooled")


def test_a_bundle_has_pooled_sound_beside_all_of_it(tiny_weights: Path, tmp_path: Path) -> None:
    bundle = write_bundle(
        BundleContents(tiny_weights, ["dog barking", "race car"], config=TINY),
        tmp_path / "b",
        precisions=["int8-any-pooled"],
    )
    graphs = bundle.manifest.graphs
    assert list(graphs["vision"]) == ["int8-any"]
    assert list(graphs["audio"]) == ["int8-any", "int8-any-pooled"]
    assert bundle.manifest.precision["onnxruntime-cpu"]["audio"] == "int8-any"
    assert bundle.manifest.exact_on["int8-any-pooled"] == ("any",)
    checks = {(each.graph, each.precision): each for each in bundle.manifest.parity.checks}
    assert checks["audio", "fp32-pooled"].required_cosine == 0.998  # of pooling alone
    assert checks["audio", "int8-any-pooled"].required_cosine == 0.99
    gates = {gate.precision["audio"]: gate for gate in bundle.manifest.parity.gates}
    assert set(gates) == {"int8-any", "int8-any-pooled"}
    assert len({gate.graphs_sha256 for gate in gates.values()}) == 2
    backend = open_backend(Bundle.open(bundle.path), device="cpu", precision="int8-any-pooled")
    assert backend.info.precision == {"vision": "int8-any", "audio": "int8-any-pooled", "head": "fp32"}
    backend.close()
