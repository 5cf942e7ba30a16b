"""The PyTorch backend, opened through its entry point like any other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.encoders import encoders
from support.golden_weights import GOLDEN, MODALITIES, golden_inputs, write_golden_checkpoint

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.manifest import Fusion, Manifest, Model, Parity
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError, CheckpointError, DeviceError, UsageError
from ovavel.training.heads.temporal import TemporalHead
from ovavel.training.models.imagebind.model import ImageBindConfig

TINY = ImageBindConfig.tiny()


def bundle(config: dict[str, Any], head_layers: int) -> Bundle:
    model = Model(name="tiny", weights_sha256="0" * 64, licence="none", config=config, head_layers=head_layers)
    manifest = Manifest(
        format_version=1,
        ovavel_version="0",
        model=model,
        encoders=encoders(32),
        graphs={},
        precision={},
        files={},
        fusion=Fusion(),
        opset=20,
        parity=Parity(versions={}, checks=()),
        exact_on={},
        vocabulary="",
    )
    vocabulary = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, 32, dtype=np.float32)))
    return Bundle(path=Path("tiny"), manifest=manifest, sha256="0" * 64, vocabulary=vocabulary)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_golden_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth", TINY)


def test_runs_the_original_weights(weights: Path, tmp_path: Path) -> None:
    TemporalHead(1, dim=32, hidden=8, ffn=16).save(tmp_path / "head.safetensors")
    backend = open_backend(
        bundle(TINY.to_dict(), 1),
        name="torch",
        device="cpu",
        threads=1,
        graphs=(*MODALITIES, "head"),
        weights=weights,
        head=tmp_path / "head.safetensors",
    )
    assert (backend.info.name, backend.info.device, backend.info.threads) == ("torch", "cpu", 1)
    assert backend.info.precision == dict.fromkeys((*MODALITIES, "head"), "fp32")
    assert backend.info.versions == {"torch": torch.__version__}
    backend.warm_up()
    with np.load(GOLDEN / "dev_tiny.npz") as golden:
        tokens = golden["tokens"]
        frames, log_mels = (golden_inputs()[name].numpy() for name in ("vision", "audio"))
        frames.setflags(write=False)
        for name, x in (("vision", frames), ("audio", log_mels), ("text", tokens)):
            expected = golden[name] / np.linalg.norm(golden[name], axis=-1, keepdims=True)
            ours = backend.text(x, "vision") if name == "text" else getattr(backend, name)(x)
            np.testing.assert_allclose(ours, expected, atol=2e-6, rtol=0)
    text = TextEmbeddings.shared(backend.text(tokens, "audio"))
    output = backend.head(backend.audio(log_mels)[None], backend.vision(frames)[None], text)
    assert {array.shape for array in output} == {(1, 2, 3)}
    assert {array.dtype for array in output} == {np.dtype(np.float32)}
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.vision(frames)


def test_training_free_head_compares_the_embeddings_themselves(weights: Path) -> None:
    backend = open_backend(bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("head",))
    g = np.random.default_rng(0)
    audio, vision, text = (g.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 32), (2, 3, 32), (5, 32)))
    audio, vision, text = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (audio, vision, text))
    output = backend.head(audio, vision, TextEmbeddings.shared(text))
    np.testing.assert_allclose(output.audio_similarity, audio @ text.T, atol=1e-6, rtol=0)
    np.testing.assert_allclose(output.vision_similarity, vision @ text.T, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="not opened with the vision graph"):
        backend.vision(np.zeros((1, 3, 224, 224), np.float32))


def test_missing_or_mismatched_parts_are_reported(weights: Path, tmp_path: Path) -> None:
    def opened(config: dict[str, Any] | None = None, head_layers: int = 0, **options: Any) -> None:
        open_backend(bundle(TINY.to_dict() if config is None else config, head_layers), name="torch", **options)

    with pytest.raises(UsageError, match="`weights`"):
        opened()
    with pytest.raises(UsageError, match=r"with 1 block\(s\).*give its checkpoint"):
        opened(head_layers=1, weights=weights)
    TemporalHead(1, dim=16, hidden=8, ffn=16).save(tmp_path / "head.safetensors")
    with pytest.raises(UsageError, match=r"for embeddings of 32; .* is temporal with 1 for 16"):
        opened(head_layers=1, weights=weights, head=tmp_path / "head.safetensors")
    with pytest.raises(BundleError, match="size of its encoders"):
        opened({}, weights=weights)
    with pytest.raises(CheckpointError, match="of another size"):
        opened(ImageBindConfig.huge().to_dict(), weights=weights)
    with pytest.raises(UsageError, match="threads"):
        opened(weights=weights, threads=0)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_a_missing_gpu_is_an_error(weights: Path, device: str) -> None:
    if torch.cuda.is_available() and device != "cuda:99":
        backend = open_backend(bundle(TINY.to_dict(), 0), name="torch", device=device, weights=weights)
        assert backend.info.device == "cuda:0"
        return
    with pytest.raises(DeviceError, match=device):
        open_backend(bundle(TINY.to_dict(), 0), name="torch", device=device, weights=weights)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "mps", "", "CUDA"])
def test_an_unknown_device_is_refused(weights: Path, device: str) -> None:
    with pytest.raises(UsageError, match="cpu, cuda, cuda:N or auto"):
        open_backend(bundle(TINY.to_dict(), 0), name="torch", device=device, weights=weights)


def test_auto_uses_the_available_device(weights: Path) -> None:
    backend = open_backend(bundle(TINY.to_dict(), 0), name="torch", device="auto", weights=weights)
    assert backend.info.device == ("cuda:0" if torch.cuda.is_available() else "cpu")


def test_other_modes_agree_or_are_refused(weights: Path) -> None:
    def opened(**options: Any) -> Any:
        graphs = ("vision", "audio")
        return open_backend(
            bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=graphs, weights=weights, **options
        )

    frames = golden_inputs()["vision"].numpy()
    eager, cast = opened(), opened(precision="bf16", cast_weights=True)
    assert cast.info.provider == "PyTorch eager, cast weights"
    assert cast.info.precision == {"vision": "bf16", "audio": "bf16"}
    answer = cast.vision(frames)
    assert answer.dtype == np.float32
    assert (answer * eager.vision(frames)).sum(axis=1).min() > 0.999
    for options, error, message in (
        ({"mode": "graph"}, DeviceError, "CUDA graphs need a GPU"),
        ({"mode": "quick"}, UsageError, "eager, compile, graph"),
        ({"cast_weights": True}, UsageError, "already fp32"),
        ({"precision": "fp16", "cast_weights": True}, UsageError, "fp16 needs a GPU"),
    ):
        with pytest.raises(error, match=message):
            opened(**options)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_encoder_agrees_or_reports_what_is_missing(weights: Path) -> None:
    compiled = open_backend(
        bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("audio",), weights=weights, mode="compile"
    )
    eager = open_backend(bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("audio",), weights=weights)
    log_mels = golden_inputs()["audio"].numpy()
    if shutil.which("g++") is None:
        with pytest.raises(DeviceError, match=r"PyTorch compiled cannot run audio"):
            compiled.audio(log_mels)
        return
    np.testing.assert_allclose(compiled.audio(log_mels), eager.audio(log_mels), atol=1e-5)


def test_a_missing_compiler_is_reported(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tower: torch.nn.Module, **options: Any) -> torch.nn.Module:
        class Broken(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("InvalidCxxCompiler: no working C++ compiler")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    compiled = open_backend(
        bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("audio",), weights=weights, mode="compile"
    )
    with pytest.raises(DeviceError, match=r"PyTorch compiled cannot run audio on cpu: .*no working C\+\+ compiler"):
        compiled.audio(golden_inputs()["audio"].numpy())


@pytest.fixture
def compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Yield the list of graphs that PyTorch compiled; no compiler is needed."""
    compile_, shapes = torch.compile, list[Any]()

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        shapes.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda tower, **options: compile_(tower, backend=backend, **options))
    torch._dynamo.reset()
    yield shapes
    torch._dynamo.reset()


@pytest.mark.slow
def test_more_shapes_are_compiled_than_by_default(weights: Path, compiled_shapes: list[Any]) -> None:
    compiled = open_backend(
        bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("audio",), weights=weights, mode="compile"
    )
    log_mels = golden_inputs()["audio"].numpy()[:1]
    before = 0
    for size in range(1, 12):
        compiled.audio(np.repeat(log_mels, size, axis=0))
        assert len(compiled_shapes) > before, f"a batch of {size} ran eager"
        before = len(compiled_shapes)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_shapes")
def test_beyond_the_limit_a_compiled_encoder_fails(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.training.torch_backend.modes._MAX_SHAPES", 2)
    compiled = open_backend(
        bundle(TINY.to_dict(), 0), name="torch", device="cpu", graphs=("audio",), weights=weights, mode="compile"
    )
    log_mels = golden_inputs()["audio"].numpy()[:1]
    for size in (1, 2):
        compiled.audio(np.repeat(log_mels, size, axis=0))
    with pytest.raises(DeviceError, match="more than 2 input shapes"):
        compiled.audio(np.repeat(log_mels, 3, axis=0))
