"""A bundle of CLIP and CLAP, sabotaged where ImageBind has nothing of the kind: two spaces, quick GELU, Swin, mels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.clip_clap_folders import clap_folder, clip_folder
from support.made_heads import made, noisy
from support.media_factory import make_clip
from support.sabotage import check_stage, compare_stage, constants, graph_surgery, put, relist

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import VocabularyError
from ovavel.runtime.pipeline import clap_log_mel
from ovavel.runtime.verification.compare import Stage

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(600)]

NAMES = ("dog barking", "race car", "bird chirping")
SIZE = 24
"""Of both spaces, so that one could stand in for the other."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, a head, and their bundle as it should be: do not change it."""
    root = tmp_path_factory.mktemp("pair")
    folders = (clip_folder(root / "clip"), clap_folder(root / "clap"))
    noisy(made("temporal", dim=SIZE, hidden=8, ffn=16)).save(root / "head.safetensors")
    write_bundle(BundleContents(folders, NAMES, head=root / "head.safetensors"), root / "bundle")
    noise = (0.2 * np.random.default_rng(0).standard_normal((1, 3 * 48_000))).astype(np.float32)
    make_clip(root / "clip.mp4", duration_s=3, fps=5, waveform=noise, rate_hz=48_000)
    return root


Texts = Callable[[TextEmbeddings], TextEmbeddings]


def texts(change: Texts) -> Callable[[Path], None]:
    def sabotage(folder: Path) -> None:
        old = Bundle.open(folder).vocabulary
        for name, content in Vocabulary(names=old.names, embeddings=change(old.embeddings)).encode().items():
            (folder / name).write_bytes(content)

    return sabotage


def rolled(text: TextEmbeddings, *, audio: int = 0, vision: int = 0) -> TextEmbeddings:
    return TextEmbeddings(np.roll(text.audio, audio, axis=0), np.roll(text.vision, vision, axis=0))


def gelu(graph: onnx.GraphProto) -> None:
    """GELU in the place of quick GELU, x · sigmoid(1.702 x)."""
    made_by = {name: node for node in graph.node for name in node.output}
    found = 0
    for node in graph.node:
        gates = [made_by[name] for name in node.input if name in made_by and made_by[name].op_type == "Sigmoid"]
        if node.op_type == "Mul" and gates:
            (x,) = (name for name in node.input if name != gates[0].output[0])
            node.CopyFrom(helper.make_node("Gelu", [x], [node.output[0]]))
            found += 1
    assert found


def exchanged_texts(graph: onnx.GraphProto) -> None:
    """Each sense is compared with the texts of the other one's space."""
    other = {"audio_text": "vision_text", "vision_text": "audio_text"}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = other.get(name, name)


def of_shape(graph: onnx.GraphProto, wanted: Callable[[tuple[int, ...]], bool]) -> list[onnx.TensorProto]:
    found = [tensor for tensor in graph.initializer if wanted(tuple(tensor.dims))]
    assert found
    return found


def transposed_distances(graph: onnx.GraphProto) -> None:
    """The biases by distance of CLAP's windows go from the asked token to the asking one."""
    for bias in of_shape(graph, lambda shape: len(shape) == 4 and shape[0] == 1 and shape[2:] == (64, 64)):
        put(bias, numpy_helper.to_array(bias).transpose(0, 1, 3, 2))


def unmasked(graph: onnx.GraphProto) -> None:
    """In rolled pictures, tokens see what only lies beside them because of the roll."""
    masks = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and (numpy_helper.to_array(tensor) == -100).any()
    ]
    assert masks
    for mask in masks:
        put(mask, np.zeros(mask.dims, np.float32))


def unnormalized_mels(graph: onnx.GraphProto) -> None:
    """The mels' scale is left out."""
    known = constants(graph)
    put(known["gain"], np.ones(known["gain"].dims, np.float32))


def shifted_positions(graph: onnx.GraphProto) -> None:
    """RoBERTa's positions begin one row too early."""
    for positions in of_shape(graph, lambda shape: len(shape) >= 2 and shape[-2] in (77, 514) and shape[-1] == 32):
        put(positions, np.roll(numpy_helper.to_array(positions), 1, axis=-2))


@dataclass(frozen=True)
class Sabotage:
    stage: Stage
    change: Callable[[Path], None]


BUNDLES: Mapping[str, Sabotage] = {
    "texts of sound permuted": Sabotage("vocabulary", texts(lambda text: rolled(text, audio=1))),
    "texts of sight permuted": Sabotage("vocabulary", texts(lambda text: rolled(text, vision=1))),
    "both permuted alike": Sabotage("vocabulary", texts(lambda text: rolled(text, audio=1, vision=1))),
    "text matrices exchanged": Sabotage("vocabulary", texts(lambda text: TextEmbeddings(text.vision, text.audio))),
    "one space for both": Sabotage("vocabulary", texts(lambda text: TextEmbeddings.shared(text.vision))),
    "texts of sound rescaled": Sabotage(
        "vocabulary", texts(lambda text: TextEmbeddings(text.audio * np.float32(1.0005), text.vision))
    ),
    "head compares with the other texts": Sabotage("similarity", graph_surgery("head.onnx", exchanged_texts)),
    "GELU of sight": Sabotage("vision", graph_surgery("vision.onnx", gelu)),
    "GELU of sight's texts": Sabotage("text", graph_surgery("vision_text.onnx", gelu)),
    "distances transposed": Sabotage("audio", graph_surgery("audio.onnx", transposed_distances)),
    "rolled without masks": Sabotage("audio", graph_surgery("audio.onnx", unmasked)),
    "mels not normalized": Sabotage("audio", graph_surgery("audio.onnx", unnormalized_mels)),
    "positions shifted": Sabotage("text", graph_surgery("audio_text.onnx", shifted_positions)),
}


COMPARED = ("text matrices exchanged", "head compares with the other texts", "GELU of sight", "rolled without masks")
"""With PyTorch, too: one of each stage."""


@pytest.mark.parametrize("name", BUNDLES)
def test_a_sabotaged_pair_is_caught_and_the_stage_named(name: str, pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair / "bundle", tmp_path / "bundle"))
    sabotage = BUNDLES[name]
    sabotage.change(folder)
    relist(folder)
    assert check_stage(Bundle.open(folder)) == sabotage.stage
    if name in COMPARED:
        assert compared(folder, pair) == sabotage.stage


def compared(folder: Path, pair: Path) -> Stage | None:
    weights = (pair / "clip", pair / "clap")
    return compare_stage(Bundle.open(folder), pair / "clip.mp4", weights=weights, head=pair / "head.safetensors")


def test_texts_of_another_norm_are_no_vocabulary(pair: Path) -> None:
    vocabulary = Bundle.open(pair / "bundle").vocabulary
    larger = TextEmbeddings(vocabulary.embeddings.audio, vocabulary.embeddings.vision * np.float32(2))
    with pytest.raises(VocabularyError, match="norm 1"):
        Vocabulary(names=vocabulary.names, embeddings=larger)


SLANEY = clap_log_mel._mel_bank.__wrapped__
"""Makes the right filters, each time again."""


def htk_filters() -> np.ndarray:
    """(513, 64) triangles on the HTK scale, of height 1: those of the fused CLAP."""
    mel = np.linspace(0, 2595 * np.log10(1 + 14_000 / 700), 66)
    corners = 700 * (10 ** (mel / 2595) - 1)
    return triangles(corners)


def even_filters() -> np.ndarray:
    """Slaney's, but each as high as the others."""
    bank = SLANEY()
    peaks: np.ndarray = bank / bank.max(axis=0)
    return peaks


def triangles(corners: np.ndarray) -> np.ndarray:
    bins = np.fft.rfftfreq(1024, 1 / 48_000)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    bank: np.ndarray = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    return bank


RUNTIMES: Mapping[str, tuple[str, object]] = {
    "HTK filters": ("_mel_bank", htk_filters),
    "filters of one height": ("_mel_bank", even_filters),
    "filters up to 24 kHz": ("_HIGH_HZ", 24_000.0),
    "symmetric window": ("_window", lambda: np.hanning(1024)),
    "no window": ("_window", lambda: np.ones(1024)),
    "higher floor": ("_FLOOR", 1e-6),
}


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_sabotaged_preparation_is_caught(name: str, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, instead = RUNTIMES[name]
    monkeypatch.setattr(clap_log_mel, part, instead)
    if part == "_HIGH_HZ":  # what was computed with the right one
        monkeypatch.setattr(clap_log_mel, "_mel_bank", SLANEY)
    assert check_stage(Bundle.open(pair / "bundle")) == "preprocess sound"


def test_an_untouched_pair_passes(pair: Path) -> None:
    assert check_stage(Bundle.open(pair / "bundle")) is None
    assert compared(pair / "bundle", pair) is None
