"""A bundle of CLIP and CLAP: two spaces, two tokenizers, two licences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from support.clip_clap_folders import clap_folder, clip_folder, roberta
from support.runtime.bundles import relist

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import CheckpointError, InputError, UsageError
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.types import Window
from ovavel.runtime.verification.self_check import check_stages, graphs_to_check
from ovavel.training.models.clap.config import ClapConfig
from ovavel.training.models.clap.tokenizer import roberta_tokenizer
from ovavel.training.models.source import ClipAndClap, joined_sha256, open_model

pytestmark = pytest.mark.timeout(400)  # a bundle is exported in three precisions

NAMES = ("Dog barking", "race car", "bird chirping")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("weights")
    return clip_folder(root / "clip"), clap_folder(root / "clap")


@pytest.fixture(scope="module")
def bundle(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "clip-clap"
    return write_bundle(BundleContents(folders, NAMES), out, precisions=("fp32", "fp16", "int8-any"))


def test_their_sound_is_not_pooled(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds nothing twice: export with --precision int8-any"):
        write_bundle(BundleContents(folders, NAMES), tmp_path / "pooled", precisions=("fp32", "int8-any-pooled"))
    assert not list(tmp_path.iterdir())


def test_the_bundle_computes_what_pytorch_computes(bundle: Bundle, folders: tuple[Path, Path]) -> None:
    graphs = ("vision", "audio", "audio_text", "vision_text", "head")
    ours, theirs = (
        open_backend(bundle, device="cpu", graphs=graphs, precision="fp32"),
        open_backend(bundle, name="torch", device="cpu", graphs=graphs, weights=folders),
    )
    rng = np.random.default_rng(0)
    window = Window(
        index=0,
        start_s=0.0,
        captured_s=0.0,
        frame=rng.integers(0, 256, (240, 320, 3), np.uint8),
        waveform=(0.1 * rng.standard_normal((1, 48_000))).astype(np.float32),
    )
    segments = [Encoder(backend).encode([window])[0] for backend in (ours, theirs)]
    for sense in ("audio", "vision"):
        found, expected = (getattr(segment, sense) for segment in segments)
        np.testing.assert_allclose(found, expected, atol=5e-6)
        tokens = bundle.tokenizer(sense).encode(NAMES)
        np.testing.assert_allclose(ours.text(tokens, sense), theirs.text(tokens, sense), atol=5e-6)
        np.testing.assert_allclose(ours.text(tokens, sense), bundle.vocabulary.embeddings.of(sense)[:-1], atol=5e-6)
    ours.close()
    theirs.close()


def test_the_manifest_says_what_it_is_made_of(bundle: Bundle, folders: tuple[Path, Path]) -> None:
    manifest = bundle.manifest
    assert manifest.model.name == "clip and clap"
    assert manifest.model.licence == "clip: mit; clap: apache-2.0"
    hashes = [file_entry(folder / "model.safetensors").sha256 for folder in folders]
    assert manifest.model.weights_sha256 == joined_sha256(hashes)
    assert manifest.encoders == ClipAndClap(*folders).encoders
    assert set(manifest.graphs) == {"vision", "audio", "audio_text", "vision_text", "head"}
    assert set(manifest.graphs["audio"]) == {"fp32", "fp16", "int8-any"}
    assert set(manifest.graphs["audio_text"]) == {"fp32"}
    assert not bundle.vocabulary.embeddings.is_shared
    assert {gate.precision["audio"] for gate in manifest.parity.gates if gate.passed} >= {"fp32", "int8-any"}


def test_the_order_of_the_folders_does_not_matter(folders: tuple[Path, Path]) -> None:
    assert open_model(folders[::-1]).weights == open_model(folders).weights


def test_each_sense_reads_texts_in_its_own_way(bundle: Bundle) -> None:
    """CLIP lower-cases; RoBERTa keeps the case. Names of control tokens are plain text to both."""
    vision, audio = bundle.tokenizer("vision"), bundle.tokenizer("audio")
    texts = ["Dog barking", "dog barking", " dog  barking ", "<s> <pad> </s>"]
    first, second, *_ = vision.encode(texts)
    assert np.array_equal(first, second)
    plain = roberta()
    for tokens, text in zip(audio.encode(texts), ("Dog barking", "dog barking", "dog barking"), strict=False):
        expected = plain.encode(text).ids
        assert tokens[: len(expected)].tolist() == expected
        assert set(tokens[len(expected) :]) <= {1}
    marks = audio.encode(texts)[3]
    assert np.count_nonzero(marks == 0) == np.count_nonzero(marks == 2) == 1
    assert np.flatnonzero(marks == 1).tolist() == list(range(77 - np.count_nonzero(marks == 1), 77))


def test_licences_are_asked_for(folders: tuple[Path, Path], tmp_path: Path) -> None:
    silent = clap_folder(tmp_path / "silent", licence=None)
    with pytest.raises(UsageError, match=r"silent \(README.md\) does not say the licence"):
        write_bundle(BundleContents((folders[0], silent), NAMES), tmp_path / "bundle")
    with pytest.raises(UsageError, match="1 licences for 2 weights"):
        write_bundle(BundleContents((folders[0], silent), NAMES, licences=("MIT",)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_what_is_no_pair_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of clip and one of clap"):
        open_model((folders[0], folders[0]))
    with pytest.raises(UsageError, match="is a folder"):
        open_model(folders[0])
    with pytest.raises(UsageError, match="not 3 paths"):
        open_model((*folders, folders[0]))
    with pytest.raises(InputError, match="no folder of weights"):
        open_model((folders[0], tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_model(tmp_path / "nowhere.pth")


def test_a_tokenizer_of_another_model_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    size = ClapConfig().text_config
    with pytest.raises(InputError, match="cannot read CLAP's tokenizer"):
        roberta_tokenizer(tmp_path, size)
    content = json.loads((folders[1] / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    with pytest.raises(UsageError, match="start and an end token"):
        roberta_tokenizer(tmp_path, size)
    assert tokenizers.Tokenizer.from_str(roberta_tokenizer(folders[1], size).decode()).padding["length"] == 77


def test_damaged_weights_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = clap_folder(tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    del state["audio_projection.linear2.bias"]
    save_file({**state, "text_model.more": torch.zeros(1)}, broken / "model.safetensors")
    model = open_model((folders[0], broken))
    with pytest.raises(CheckpointError, match=r"audio_projection\.linear2\.bias"):
        model.tower("audio")
    with pytest.raises(CheckpointError, match=r"text_model\.more"):
        model.tower("audio_text")


def spoiled_vocabulary(folder: Path) -> None:
    """The texts of sound alone are those of other names."""
    vocabulary = Bundle.open(folder).vocabulary
    text = TextEmbeddings(vocabulary.embeddings.audio[::-1], vocabulary.embeddings.vision)
    for name, content in Vocabulary(names=vocabulary.names, embeddings=text).encode().items():
        (folder / name).write_bytes(content)


def spoiled_tokenizer(folder: Path) -> None:
    """The tokenizer of sound alone ignores case."""
    content = json.loads((folder / "audio_tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (folder / "audio_tokenizer.json").write_text(json.dumps(content))


def spoiled_graph(folder: Path) -> None:
    """The text encoder of sound alone has other weights."""
    weights = folder / "audio_text.onnx.data"
    values = np.frombuffer(weights.read_bytes(), "<f4").copy()
    values *= 1.01
    weights.write_bytes(values.tobytes())


@pytest.mark.parametrize(
    ("spoil", "stage"),
    [(spoiled_vocabulary, "vocabulary"), (spoiled_tokenizer, "text"), (spoiled_graph, "text")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_spoiled_second_text_space_is_found(
    bundle: Bundle, tmp_path: Path, spoil: Callable[[Path], None], stage: str
) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    spoil(folder)
    for name in bundle.manifest.files:
        relist(folder, name)
    changed = Bundle.open(folder)
    backend = open_backend(changed, device="cpu", graphs=graphs_to_check(changed), precision="fp32")
    assert check_stages(changed, backend).failed_stage == stage
    backend.close()
