"""Heads of every kind in ONNX and in a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.demo_copies import CLIP
from support.encoders import encoders
from support.made_heads import KINDS, made, noisy
from support.onnx_graphs import export_graph
from support.proofs import proof_unless

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.verify import check_graph, head_inputs, reference
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import ExportError, UsageError
from ovavel.runtime.pipeline.localizer import deciding_head
from ovavel.runtime.session import Session
from ovavel.runtime.verification.self_check import graphs_to_check, self_check
from ovavel.training.heads.base import load_head
from ovavel.training.heads.temporal import HeadGraph, HeadKind, TemporalHead
from ovavel.training.models.imagebind.model import ImageBindConfig
from ovavel.training.torch_backend.backend import open_torch

pytestmark = pytest.mark.slow

DIM = 32


def text() -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((6, DIM), dtype=np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["temporal", "linear", "cross-modal"])
@pytest.mark.parametrize("gate", proof_unless((0.4,).__contains__, [None, 0.4]))
def test_every_kind_gives_the_same_in_onnx(kind: HeadKind, gate: float | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = TemporalHead(2, DIM, 8, 16, kind=kind, gate=gate, learn_gate=gate is not None, audio_scale=2.0)
    head.save(tmp_path / "head.safetensors")
    graph = HeadGraph(TemporalHead.load(tmp_path / "head.safetensors"))
    file, *_ = export_graph("head", graph, tmp_path, encoders=encoders(DIM))
    check_graph(file, reference("head", graph, head_inputs(TextEmbeddings.shared(text()))), "fp32")


@pytest.mark.proof
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


def unit(x: np.ndarray) -> np.ndarray:
    values: np.ndarray = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return values


@pytest.mark.parametrize(
    "kind", proof_unless(("ave", "complex").__contains__, [kind for kind in KINDS if kind != "temporal"])
)
def test_heads_of_other_systems_are_the_same_in_onnx_for_any_length(kind: str, tmp_path: Path) -> None:
    noisy(made(kind, dim=DIM)).save(tmp_path / "head.safetensors")
    graph = HeadGraph(load_head(tmp_path / "head.safetensors"))
    file, *_ = export_graph("head", graph, tmp_path, encoders=encoders(DIM))
    check_graph(file, reference("head", graph, head_inputs(TextEmbeddings.shared(text()))), "fp32")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    g = np.random.default_rng(1)
    for segments in range(1, 11):
        for clips, names in ((1, 4), (2, 1)):
            audio, vision = unit(g.standard_normal((2, clips, segments, DIM)))
            names_text = unit(g.standard_normal((names, DIM)))
            with torch.inference_mode():
                expected = graph(*map(torch.from_numpy, (audio, vision, names_text, names_text)))
            got = session.run(
                None, {"audio": audio, "vision": vision, "audio_text": names_text, "vision_text": names_text}
            )
            for mine, theirs in zip(got, expected, strict=True):
                np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4)


@pytest.mark.proof
def test_psp_without_any_connection_is_the_same_in_onnx(tmp_path: Path) -> None:
    head = made("psp", dim=DIM)
    head.get_parameter("v2.weight").data.zero_()
    graph = HeadGraph(head)
    file, *_ = export_graph("head", graph, tmp_path, encoders=encoders(DIM))
    check_graph(file, reference("head", graph, head_inputs(TextEmbeddings.shared(text()))), "fp32")


@pytest.mark.parametrize("kind", proof_unless(("complex",).__contains__, KINDS[1:]))
def test_a_bundle_of_another_head_passes_its_gate_and_decides_as_pytorch(
    kind: str, tmp_path: Path, tiny_weights: Path
) -> None:
    noisy(made(kind, dim=DIM)).save(tmp_path / "head.safetensors")
    options = {"config": ImageBindConfig.tiny(), "head": tmp_path / "head.safetensors"}
    bundle = write_bundle(BundleContents(tiny_weights, ["dog", "bird", "car"], **options), tmp_path / "bundle")  # type: ignore[arg-type]
    model, fusion = bundle.manifest.model, bundle.manifest.fusion
    assert (model.head, fusion.decision) == (kind, "learned" if kind == "complex" else "positive")
    backend = open_backend(bundle, device="cpu", graphs=graphs_to_check(bundle))
    torch_backend = open_torch(bundle, device="cpu", weights=tiny_weights, head=tmp_path / "head.safetensors")
    try:
        for each in (backend, torch_backend):
            gate = self_check(bundle, each)
            assert gate.passed, gate.failures
            assert gate.decisions == 1.0
        g = np.random.default_rng(1)
        audio, vision = unit(g.standard_normal((2, 1, 10, DIM)))
        both = [
            deciding_head(each.head, fusion.decides)(audio, vision, bundle.vocabulary.embeddings)
            for each in (backend, torch_backend)
        ]
        np.testing.assert_allclose(both[0].score, both[1].score, atol=1e-4)
        assert backend.head(audio, vision, bundle.vocabulary.embeddings).score.shape == (1, 10, 4)
    finally:
        backend.close()
        torch_backend.close()
    TemporalHead(1, DIM, 8, 16).save(tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=f"head is {kind} with 1 block.* is temporal with 1"):
        open_torch(bundle, device="cpu", graphs=("head",), head=tmp_path / "other.safetensors")


def test_a_learned_score_that_is_off_fails_the_gate(tmp_path: Path, tiny_weights: Path) -> None:
    head = noisy(made("complex", dim=DIM))
    head.save(tmp_path / "head.safetensors")
    options = {"config": ImageBindConfig.tiny(), "head": tmp_path / "head.safetensors"}
    bundle = write_bundle(BundleContents(tiny_weights, ["dog", "bird", "car"], **options), tmp_path / "bundle")  # type: ignore[arg-type]
    head.get_parameter("last.imaginary.weight").data.neg_()
    head.save(tmp_path / "sabotaged.safetensors")
    backend = open_torch(bundle, device="cpu", weights=tiny_weights, head=tmp_path / "sabotaged.safetensors")
    gate = self_check(bundle, backend)
    backend.close()
    assert not gate.passed
    assert any(failure.startswith("score") for failure in gate.failures)
    assert not any(failure.startswith("similarity") for failure in gate.failures)


def test_a_learned_fusion_is_not_replaced(tmp_path: Path, tiny_weights: Path) -> None:
    noisy(made("complex", dim=DIM)).save(tmp_path / "head.safetensors")
    options = {"config": ImageBindConfig.tiny(), "head": tmp_path / "head.safetensors"}
    bundle = write_bundle(BundleContents(tiny_weights, ["dog"], **options), tmp_path / "bundle")  # type: ignore[arg-type]
    for fusion in ("positive", "published"):
        with pytest.raises(UsageError, match=f"'learned' and cannot be '{fusion}'"):
            Session(bundle, CLIP, fusion=fusion)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", ["prob-avg", "feature-avg"])
def test_ablations_of_the_score_are_not_exported(score: str, tmp_path: Path, tiny_weights: Path) -> None:
    TemporalHead(1, DIM, 8, 16, score=score).save(tmp_path / "head.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=score):
        write_bundle(
            BundleContents(tiny_weights, ["dog"], config=ImageBindConfig.tiny(), head=tmp_path / "head.safetensors"),
            tmp_path / "bundle",
        )
    assert not (tmp_path / "bundle").exists()
