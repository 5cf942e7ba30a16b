"""A bundle as of CLIP for sight and CLAP for sound: a space, a size, a text encoder and a tokenizer for each sense."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from ovavel.export.golden import GoldenWriter, checked
from ovavel.export.graphs import save_variant, traced
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.bundle.manifest import FORMAT_VERSION, MANIFEST, Fusion, Manifest, Model, Parity
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Tokenizer, Vocabulary
from ovavel.runtime.pipeline.preprocess import PREPARATIONS
from ovavel.runtime.system.progress import no_progress
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.unit import unit_norm

NAMES = ("dog barking", "race car", "bird chirping", "other")
AUDIO_SIZE, VISION_SIZE = 24, 16
TOKENIZER = Path(__file__).parents[2] / "eval" / "demo" / "assets" / "bundle" / "tokenizer.json"

ENCODERS = Encoders(
    audio=replace(
        PREPARATIONS["kaldi-log-mel"].spec("sound", AUDIO_SIZE, context_length=32),
        text="audio_text",
        tokenizer="audio_tokenizer.json",
    ),
    vision=replace(PREPARATIONS["clip-frame"].spec("picture", VISION_SIZE, context_length=77), text="vision_text"),
)


class _Pooled(nn.Module):
    """Means over patches, then a matrix."""

    def __init__(self, patch: tuple[int, int], features: int, size: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(patch)
        self.matrix = nn.Linear(features, size)

    def forward(self, x: Tensor) -> Tensor:
        return unit_norm(self.matrix(torch.tanh(self.pool(x)).flatten(1)))


class _Words(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(400, 8)
        self.matrix = nn.Linear(8, size)

    def forward(self, tokens: Tensor) -> Tensor:
        return unit_norm(self.matrix(torch.tanh(self.words(tokens)).mean(dim=1)))


def write_two_spaces(folder: Path) -> tuple[Bundle, Mapping[Graph, nn.Module]]:
    """Write such a bundle of small random encoders into `folder`; return what PyTorch runs, too."""
    torch.manual_seed(0)
    modules: dict[Graph, nn.Module] = {
        "vision": _Pooled((56, 56), 48, VISION_SIZE),
        "audio": _Pooled((32, 51), 16, AUDIO_SIZE),
        "audio_text": _Words(AUDIO_SIZE),
        "vision_text": _Words(VISION_SIZE),
        "head": HeadGraph(TemporalHead(0)),
    }
    folder.mkdir(parents=True)
    content = json.loads(TOKENIZER.read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content))
    content["truncation"]["max_length"] = content["padding"]["strategy"]["Fixed"] = 32
    (folder / "audio_tokenizer.json").write_text(json.dumps(content))
    for graph, module in modules.items():
        module.eval().requires_grad_(requires_grad=False)
        save_variant(traced(graph, module, encoders=ENCODERS), graph, folder, "fp32")
    audio = Tokenizer.open(folder / "audio_tokenizer.json").encode(NAMES)
    vision = Tokenizer.open(folder / "tokenizer.json").encode(NAMES)
    text = TextEmbeddings(
        modules["audio_text"](torch.from_numpy(audio)).numpy(), modules["vision_text"](torch.from_numpy(vision)).numpy()
    )
    vocabulary = Vocabulary(names=NAMES, embeddings=text)
    vocabulary.save(folder)
    golden = GoldenWriter(ENCODERS)
    for graph in ("vision", "audio"):
        golden.encode(graph, modules[graph])
    golden.decide(modules["head"], NAMES, {"audio": audio, "vision": vision}, text)
    golden.write(folder)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        ovavel_version="0",
        model=Model(name="two spaces", weights_sha256="0" * 64, licence="none", config={}, head_layers=0),
        encoders=ENCODERS,
        graphs={graph: {"fp32": f"{graph}.onnx"} for graph in modules},
        precision={},
        exact_on={},
        files={file.name: file_entry(file) for file in sorted(folder.iterdir())},
        fusion=Fusion(),
        opset=20,
        parity=Parity(versions={}, checks=()),
        vocabulary=vocabulary.version,
    )
    (folder / MANIFEST).write_bytes(manifest.encode())
    return checked(Bundle.open(folder), ["fp32"], no_progress), modules


def rows(count: int, size: int, seed: int = 0) -> np.ndarray:
    """(count, size) float32 of norm 1."""
    values = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
