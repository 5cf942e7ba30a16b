"""A bundle may have a space of its own for each sense: sizes, text encoders and tokenizers differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from support.two_spaces import AUDIO_SIZE, ENCODERS, NAMES, VISION_SIZE, rows, write_two_spaces
from torch import nn

from ovavel.eval.datasets.texts import embed_texts
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, UsageError
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import Window
from ovavel.runtime.verification.samples import random_frame, random_waveform
from ovavel.runtime.verification.self_check import check_stages, graphs_to_check
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.torch_backend.backend import TorchBackend

Made = tuple[Bundle, Mapping[Graph, nn.Module]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Do not change it."""
    return write_two_spaces(tmp_path_factory.mktemp("two") / "bundle")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_it_decides_as_pytorch_does(made: Made, name: str) -> None:
    pytest.importorskip(name)
    bundle, modules = made
    windows = [
        Window(index=i, start_s=float(i), frame=random_frame(i), waveform=random_waveform(i), captured_s=None)
        for i in range(6)
    ]
    reference = TorchBackend(modules, torch.device("cpu"), encoders=ENCODERS)
    graphs = ("vision", "audio", *ENCODERS.text_graphs, "head")
    backend = open_backend(bundle, name=name, device="cpu", precision="fp32", graphs=graphs)
    backend.warm_up()
    scores = []
    for each in (reference, backend):
        segments = Encoder(each).encode(windows)
        assert [(s.audio.shape, s.vision.shape) for s in segments] == [((AUDIO_SIZE,), (VISION_SIZE,))] * 6
        scores.append(Localizer(each.head, bundle.vocabulary).score(segments))
    for ours, theirs in zip(*scores, strict=True):
        assert ours.label == theirs.label
        np.testing.assert_allclose(ours.audio_similarity, theirs.audio_similarity, atol=1e-5)
        np.testing.assert_allclose(ours.vision_similarity, theirs.vision_similarity, atol=1e-5)
    for sense in ("audio", "vision"):
        tokens = bundle.tokenizer(sense).encode(NAMES)
        assert tokens.shape == (len(NAMES), ENCODERS.of(sense).context_length)
        np.testing.assert_allclose(backend.text(tokens, sense), bundle.vocabulary.embeddings.of(sense), atol=1e-6)
    checked = check_stages(bundle, backend)
    assert checked.gate.passed
    assert {"audio_text", "vision_text"} <= checked.gate.min_cosine.keys()
    backend.close()


def test_what_only_one_sense_has_is_shown_in_its_own_space(made: Made) -> None:
    bundle, modules = made
    reference = TorchBackend(modules, torch.device("cpu"), encoders=ENCODERS)
    window = Window(index=0, start_s=0.0, frame=None, waveform=random_waveform(1), captured_s=None)
    (score,) = Localizer(reference.head, bundle.vocabulary).score(Encoder(reference).encode([window]))
    assert np.isnan(score.vision_similarity).all()
    assert np.isfinite(score.audio_similarity).all()
    assert score.missing == ("vision",)


def test_names_are_added_to_both_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, modules = write_two_spaces(tmp_path / "bundle")
    assert {"audio_text", "vision_text"} <= set(graphs_to_check(bundle))
    assert main(["vocab", "add", "glass breaking", "--bundle", str(bundle.path)]) == 0
    added = Bundle.open(bundle.path)
    assert added.vocabulary.names == (*NAMES[:-1], "glass breaking", "other")
    assert not added.vocabulary.embeddings.is_shared
    assert added.vocabulary.agrees_with(bundle.vocabulary)
    for sense in ("audio", "vision"):
        tokens = torch.from_numpy(bundle.tokenizer(sense).encode(["glass breaking"]))
        expected = modules[ENCODERS.of(sense).text](tokens).numpy()
        np.testing.assert_allclose(added.vocabulary.embeddings.of(sense)[3:4], expected, atol=1e-6)
        np.testing.assert_allclose(embed_texts(bundle, ["Glass  Breaking"]).of(sense), expected, atol=1e-6)
    assert main(["vocab", "remove", "glass breaking", "--bundle", str(bundle.path)]) == 0
    assert Bundle.open(bundle.path).vocabulary.version == bundle.vocabulary.version
    assert "4 names and the background" in capsys.readouterr().out
    with pytest.raises(UsageError, match="24 and 16"):
        added.save_vocabulary(Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(rows(2, 16))))


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    bundle, _ = write_two_spaces(tmp_path / "bundle")
    manifest = (bundle.path / "manifest.json").read_text()
    (bundle.path / "manifest.json").write_text(manifest.replace('"audio_tokenizer.json": {', '"other.json": {'))
    (bundle.path / "audio_tokenizer.json").rename(bundle.path / "other.json")
    with pytest.raises(BundleError, match=r"does not list audio_tokenizer\.json"):
        Bundle.open(bundle.path)


def test_a_tokenizer_of_another_length_is_refused(tmp_path: Path) -> None:
    bundle, _ = write_two_spaces(tmp_path / "bundle")
    encoders = replace(bundle.manifest.encoders, audio=replace(ENCODERS.audio, tokenizer="tokenizer.json"))
    (bundle.path / "manifest.json").write_bytes(replace(bundle.manifest, encoders=encoders).encode())
    with pytest.raises(BundleError, match="gives 77 tokens a text, and the text encoder of audio takes 32"):
        Bundle.open(bundle.path).tokenizer("audio")


def test_blocks_need_one_size() -> None:
    audio, vision = (torch.from_numpy(rows(3, size)[None]) for size in (AUDIO_SIZE, VISION_SIZE))
    text = (torch.from_numpy(rows(2, size)) for size in (AUDIO_SIZE, VISION_SIZE))
    with pytest.raises(UsageError, match="24 for audio and 16 for vision; take the head without blocks"):
        HeadGraph(TemporalHead(1, AUDIO_SIZE, 8, 12))(audio, vision, *text)
