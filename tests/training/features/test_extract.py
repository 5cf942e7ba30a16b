"""Filling a feature cache with real encoders from real files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.golden_weights import write_golden_checkpoint
from support.training.caches import SHARD, TINY

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.pipeline.preprocess import prepare_frame, prepare_waveform
from ovavel.training.features.encoders import Encoders, bundle_encoders, checkpoint_encoders
from ovavel.training.features.extract import cache_info, extract
from ovavel.training.models.tokenizer import clip_tokenizer


def test_each_segment_is_embedded_independently(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    bench = OVAVEBench.open(whole)
    reported: list[tuple[object, ...]] = []
    done = extract(bench, encoders, tmp_path, batch=2, shard_clips=SHARD, progress=lambda *news: reported.append(news))
    assert (done.encoded, done.kept, done.renewed) == (16, 0, 0)
    assert reported[-1] == ("encoding", 16, 16, "")
    features = FeatureCache.open(tmp_path).load(bench.clips[::-1])
    assert features.clips == bench.clips[::-1]
    assert not features.damaged
    for index in (0, 7, 15):
        windows = bench.windows(features.clips[index])
        frames = np.stack([prepare_frame(w.frame) for w in windows if w.frame is not None])
        log_mels = np.stack([prepare_waveform(w.waveform) for w in windows if w.waveform is not None])
        np.testing.assert_allclose(features.vision[index], encoders.backend.vision(frames), atol=2e-6)
        np.testing.assert_allclose(features.audio[index], encoders.backend.audio(log_mels), atol=2e-6)
    assert done.cache.names == bench.names
    np.testing.assert_allclose(done.cache.text.vision, encoders.embed(bench.names).vision, atol=2e-6)
    first, *others = done.cache.text.vision
    assert abs(float((np.stack(others) @ first).max())) < 0.9999  # the names differ


def test_a_data_set_that_has_gone_damages_no_clip(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    gone = replace(OVAVEBench.open(whole), root=tmp_path / "not mounted")
    with pytest.raises(DatasetError, match="not mounted has no folder train"):
        extract(gone, encoders, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bundle_gives_the_same_embeddings(
    whole: Path, encoders: Encoders, exported_bundle: Path, tmp_path: Path
) -> None:
    bench = OVAVEBench.open(whole)
    others = bundle_encoders(exported_bundle, device="cpu", threads=1)
    assert "text" not in others.backend.info.precision  # it may be on a GPU
    assert others.text_backend.info.device == "cpu"
    assert others.weights_sha256 == encoders.weights_sha256
    assert others.tokenizer_sha256 == encoders.tokenizer_sha256
    caches = [extract(bench, each, tmp_path, splits=["val"]).cache for each in (encoders, others)]
    ours, theirs = (cache.load(bench.select("val")) for cache in caches)
    np.testing.assert_allclose(ours.audio, theirs.audio, atol=2e-5)
    np.testing.assert_allclose(ours.vision, theirs.vision, atol=2e-5)
    np.testing.assert_allclose(caches[0].text.audio, caches[1].text.audio, atol=2e-5)
    assert caches[0].path != caches[1].path


def test_every_damaged_clip_is_reported(
    broken: tuple[Path, dict[tuple[str, str], str]], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    root, damaged = broken
    for name, data in uninterrupted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    cache, bench = FeatureCache.open(tmp_path), OVAVEBench.open(root)
    assert set(cache.damaged) == set(damaged)
    assert len(Counter(damage.kind for damage in cache.damaged.values())) >= 5
    features = cache.load(bench.clips)
    assert len(features.clips) + len(features.damaged) == len(bench.clips)
    assert {(clip.split, clip.name) for clip in features.damaged} == set(damaged)
    assert np.linalg.norm(features.vision, axis=-1) == pytest.approx(1, abs=1e-5)


def test_each_input_that_affects_embeddings_changes_the_cache(
    whole: Path, broken: tuple[Path, Any], tiny_weights: Path, encoders: Encoders, tmp_path: Path
) -> None:
    other = write_golden_checkpoint(tmp_path / "other.safetensors", TINY)
    state = bytearray(other.read_bytes())
    state[-4] ^= 1
    other.write_bytes(state)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_bytes(clip_tokenizer() + b"\n")
    bench = OVAVEBench.open(whole)
    infos = [
        cache_info(bench, encoders),
        cache_info(OVAVEBench.open(broken[0]), encoders),
        cache_info(bench, checkpoint_encoders(other, TINY, device="cpu")),
        cache_info(bench, checkpoint_encoders(tiny_weights, TINY, device="cpu", precision="bf16")),
        cache_info(bench, checkpoint_encoders(tiny_weights, TINY, device="cpu", tokenizer=tokenizer)),
    ]
    assert len({info.fingerprint for info in infos}) == len(infos)
    assert cache_info(bench, checkpoint_encoders(tiny_weights, TINY, device="cpu")) == infos[0]


def test_bf16_is_close_to_fp32_and_of_unit_norm(
    whole: Path, tiny_weights: Path, encoders: Encoders, tmp_path: Path
) -> None:
    bench = OVAVEBench.open(whole)
    reduced = checkpoint_encoders(tiny_weights, TINY, device="cpu", precision="bf16")
    full, half = (
        extract(bench, each, tmp_path, splits=["train"]).cache.load(bench.select("train"))
        for each in (encoders, reduced)
    )
    for ours, theirs in ((full.audio, half.audio), (full.vision, half.vision)):
        assert 0 < np.abs(ours - theirs).max() < 0.02
        assert np.linalg.norm(theirs, axis=-1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"shard_clips": 0}, {"workers": 0}, {"splits": ["all"]}, {"splits": []}],
    ids=str,
)
def test_invalid_options_are_refused(whole: Path, encoders: Encoders, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError if "splits" in wrong else ValueError):
        extract(OVAVEBench.open(whole), encoders, tmp_path, **wrong)
