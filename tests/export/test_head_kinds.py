"""Heads of every kind in ONNX and in a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import encoders

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.graphs import export_graph
from ovavel.export.verify import check_graph, head_inputs, reference
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import ExportError
from ovavel.training.heads.temporal import HeadGraph, HeadKind, TemporalHead
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = pytest.mark.slow

DIM = 32


def text() -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((6, DIM), dtype=np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["temporal", "linear", "cross-modal"])
@pytest.mark.parametrize("gate", [None, 0.4])
def test_every_kind_gives_the_same_in_onnx(kind: HeadKind, gate: float | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = TemporalHead(2, DIM, 8, 16, kind=kind, gate=gate, learn_gate=gate is not None, audio_scale=2.0)
    head.save(tmp_path / "head.safetensors")
    graph = HeadGraph(TemporalHead.load(tmp_path / "head.safetensors"))
    file, *_ = export_graph("head", graph, tmp_path, encoders=encoders(DIM))
    check_graph(file, reference("head", graph, head_inputs(TextEmbeddings.shared(text()))), "fp32")


def test_a_gated_head_of_another_scale_runs_from_a_bundle(tmp_path: Path, tiny_weights: Path) -> None:
    torch.manual_seed(0)
    head = TemporalHead(1, DIM, 8, 16, gate=0.5, audio_scale=1.0).eval()
    head.save(tmp_path / "head.safetensors")
    options = {"config": ImageBindConfig.tiny(), "head": tmp_path / "head.safetensors"}
    bundle = write_bundle(BundleContents(tiny_weights, ["dog", "bird"], **options), tmp_path / "bundle")  # type: ignore[arg-type]
    assert bundle.manifest.fusion.audio_scale == 1.0
    backend = open_backend(Bundle.open(tmp_path / "bundle"), device="cpu", graphs=("head",))
    g = np.random.default_rng(1)
    audio, vision = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in g.standard_normal((2, 1, 10, DIM)))
    inputs, text = [np.float32(x) for x in (audio, vision)], bundle.vocabulary.embeddings
    with torch.no_grad():
        expected = HeadGraph(head)(*map(torch.tensor, (*inputs, text.audio, text.vision)))
    for mine, theirs in zip(backend.head(*inputs, text), expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4)
    backend.close()


@pytest.mark.parametrize("score", ["prob-avg", "feature-avg"])
def test_ablations_of_the_score_are_not_exported(score: str, tmp_path: Path, tiny_weights: Path) -> None:
    TemporalHead(1, DIM, 8, 16, score=score).save(tmp_path / "head.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=score):
        write_bundle(
            BundleContents(tiny_weights, ["dog"], config=ImageBindConfig.tiny(), head=tmp_path / "head.safetensors"),
            tmp_path / "bundle",
        )
    assert not (tmp_path / "bundle").exists()
