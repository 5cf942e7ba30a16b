"""A head on CLIP and CLAP, by the commands: media → features → head → bundle → gate → decisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.clip_clap_folders import clap_folder, clip_folder
from support.made_heads import KINDS
from support.media_factory import make_clip
from support.ovavebench_factory import make_bench
from support.proofs import proof_unless

from ovavel.eval.datasets.cut import cut_windows, read_windows
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import DECIDING
from ovavel.runtime.cli import main
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.results import read_json
from ovavel.runtime.session import Session
from ovavel.runtime.types import SegmentScores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("traced_once")]

SMALL = {"temporal": ["--hidden", "8", "--ffn", "8"], "cmra": ["--ffn", "24"], "mm-pyramid": ["--ffn", "24"]}
SECONDS = 4


def run(*words: object) -> None:
    assert main([*map(str, words)]) == 0, words


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights, media, names and features."""
    root = tmp_path_factory.mktemp("pair")
    clip_folder(root / "clip")
    clap_folder(root / "clap")
    make_bench(root / "data", clips=1)
    rng = np.random.default_rng(0)
    noise = (0.2 * rng.standard_normal((1, 48_000 * SECONDS))).astype(np.float32)
    make_clip(root / "clip.mp4", duration_s=SECONDS, fps=5, waveform=noise, rate_hz=48_000)
    (root / "names.txt").write_text("dog barking\nrace car\nbird chirping\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        weights = ("--weights", root / "clip", root / "clap")
        run("train", "features", "--data", root / "data", *weights, "--workers", 1, "--out", root / "features")
        yield root


@pytest.fixture(scope="module")
def exported(root: Path) -> Callable[[str], tuple[Path, Path]]:
    """Trains a head of a kind and exports it; gives the head and the bundle."""

    @cache
    def head(kind: str) -> Path:
        out = root / "heads" / kind
        # In many steps, so that the batch norms of `complex` know their inputs: rounding shows in its scores otherwise.
        settings = ["--epochs", 5, "--batch-clips", 1, "--learning-rate", 0.003, *SMALL.get(kind, ())]
        trunk = ["--trunk", head("temporal")] if kind == "complex" else []
        recipe = "paper" if kind == "temporal" else kind
        data, features = ("--data", root / "data"), ("--features", root / "features")
        run("train", "head", *data, *features, "--recipe", recipe, *settings, *trunk, "--no-tensorboard", "--out", out)
        return out / "head.safetensors"

    @cache
    def bundle(kind: str) -> tuple[Path, Path]:
        out = root / "bundles" / kind
        weights = ("--weights", root / "clap", root / "clip")
        words = ("--head", head(kind), "--vocabulary", root / "names.txt", "--precision", "fp32", "--out", out)
        run("bundle", "export", *weights, *words)
        return head(kind), out

    return bundle


@pytest.mark.parametrize("kind", proof_unless(("temporal",).__contains__, KINDS))
def test_a_trained_head_decides_from_a_bundle_as_in_pytorch(
    kind: str, root: Path, exported: Callable[[str], tuple[Path, Path]]
) -> None:
    head, folder = exported(kind)
    bundle = Bundle.open(folder)
    assert bundle.manifest.model.head == kind
    assert not bundle.vocabulary.embeddings.is_shared
    assert bundle.manifest.parity.gates[0].passed
    run("bundle", "check", "--bundle", folder, "--device", "cpu", "--threads", 1)

    def decisions(name: str, **options: object) -> list[SegmentScores]:
        backend = open_backend(bundle, name=name, device="cpu", threads=1, graphs=DECIDING, **options)
        with closing(backend), Session(bundle, root / "clip.mp4", backend=backend) as session:
            return [scores for update in session.updates() for scores in update.scores if scores.final]

    ours = decisions("onnxruntime", precision="fp32")
    theirs = decisions("torch", weights=(root / "clip", root / "clap"), head=head)
    assert [each.index for each in ours] == [*range(SECONDS)]
    for one, other in zip(ours, theirs, strict=True):
        for field in ("audio_similarity", "vision_similarity", "scores"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=2e-4)
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-3)


@pytest.mark.parametrize("kind", proof_unless(("temporal",).__contains__, ["temporal", "complex"]))
def test_its_bundle_runs_live_and_over_recordings(
    kind: str, root: Path, tmp_path: Path, exported: Callable[[str], tuple[Path, Path]]
) -> None:
    _, folder = exported(kind)
    runs = ("--bundle", folder, "--device", "cpu", "--threads", 1)
    run("localize", root / "clip.mp4", *runs, "--out", tmp_path / "results")
    result = read_json(tmp_path / "results" / "clip.mp4.ovavel.json")
    run("live", root / "clip.mp4", *runs, "--view", "none", "--jsonl", tmp_path / "live.jsonl")
    assert result.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert (tmp_path / "live.jsonl").read_text().count('"type":"segment"') == SECONDS


def test_training_measuring_and_live_use_hear_the_same_48_khz(
    root: Path, exported: Callable[[str], tuple[Path, Path]]
) -> None:
    bundle, clip = Bundle.open(exported("temporal")[1]), root / "clip.mp4"
    assert bundle.manifest.encoders.audio.parameters["rate_hz"] == 48_000
    with Session(bundle, clip, device="cpu") as session:
        live = [update.window for update in session.updates() if update.window]
    assert session.counts.rate_hz == 48_000
    recorded, cut = list(read_windows(clip, rate_hz=48_000)), cut_windows(clip, rate_hz=48_000)
    for window, *others in zip(live, recorded, cut[:SECONDS], strict=True):
        assert window.waveform is not None
        assert window.waveform.shape == (1, 48_000)
        power = np.abs(np.fft.rfft(window.waveform[0])) ** 2
        assert power[9_000:14_000].mean() > 0.1 * power[1_000:7_000].mean(), "what lies above 8 kHz is there"
        for other in others:
            np.testing.assert_array_equal(window.waveform, other.waveform)


def test_features_are_what_the_bundle_makes_of_the_same_seconds(
    root: Path, exported: Callable[[str], tuple[Path, Path]]
) -> None:
    bundle, data = Bundle.open(exported("temporal")[1]), OVAVEBench.open(root / "data")
    cache = FeatureCache.open(root / "features")
    assert cache.info.encoders == bundle.manifest.encoders
    clip = data.select("val")[0]
    backend = open_backend(bundle, device="cpu", threads=1, graphs=DECIDING)
    with closing(backend), closing(Encoder(backend)) as encoder:
        segments = encoder.encode(data.windows(clip, 48_000))
    features = cache.load([clip])
    np.testing.assert_allclose(np.stack([each.audio for each in segments]), features.audio[0], atol=1e-5)
    np.testing.assert_allclose(np.stack([each.vision for each in segments]), features.vision[0], atol=1e-5)


def test_it_is_measured_beside_a_bundle_of_other_encoders(
    root: Path,
    tmp_path: Path,
    exported: Callable[[str], tuple[Path, Path]],
    exported_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, folder = exported("temporal")
    few = ("--scenarios", "single", "--windows", 3, "--device", "cpu", "--threads", 1, "--precision", "fp32")
    run("bench", "run", "--bundle", folder, "--beside", exported_bundle, *few, "--out", tmp_path / "bench")
    own, other = json.loads((tmp_path / "bench" / "bench.json").read_text())["rows"]
    assert (own["name"], other["name"]) == ("onnxruntime fp32", "bundle: onnxruntime fp32")
    assert own["beside"] is None
    assert other["beside"]["model"] == "imagebind_tiny"
    assert other["beside"]["window"]["of_medians"] > 0
    assert len(other["single"]["durations_ms"]["window"]) == 3
    assert "imagebind_tiny, against onnxruntime fp32, clip and clap: a window takes" in capsys.readouterr().out
