"""Clips encoded by a bundle, or read from a feature cache that belongs to it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.eval.scored import BROKEN

from ovavel.eval.datasets.dataset import Dataset
from ovavel.eval.datasets.encode import Encoded, load_cached
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError

pytestmark = pytest.mark.slow


def test_every_clip_is_accounted_for(encoded: Encoded, data: Path) -> None:
    features, damaged = encoded
    assert {record.name for record in damaged} == {clip.name for clip in features.damaged} == BROKEN
    clips = OVAVEBench.open(data).select("test")
    assert [clip.name for clip in features.clips] == [clip.name for clip in clips if clip.name not in BROKEN]
    assert features.audio.shape == features.vision.shape == (4, 10, 32)
    assert all(record.kind and record.name in record.message for record in damaged)


def test_another_dataset_or_other_weights_are_refused(cache: Path, data: Path, bundle: Bundle, tmp_path: Path) -> None:
    dataset, opened = OVAVEBench.open(data), FeatureCache.open(cache)
    clips = dataset.select("test")
    with pytest.raises(DatasetError, match="val"):
        load_cached(opened, dataset, bundle, dataset.select("val"))
    for field in ("weights_sha256", "dataset_fingerprint"):
        other = tmp_path / field
        shutil.copytree(cache, other)
        info = json.loads((cache / "cache.json").read_text()) | {field: "1" * 64}
        (other / "cache.json").write_text(json.dumps(info))
        with pytest.raises(DatasetError, match="weights" if field == "weights_sha256" else "other annotations"):
            load_cached(FeatureCache.open(other), dataset, bundle, clips)


def test_a_cache_of_another_sample_rate_is_refused(cache: Path, data: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The same weights, but sound that was prepared otherwise."""
    shutil.copytree(cache, tmp_path / "other")
    info = json.loads((cache / "cache.json").read_text())
    info["encoders"]["audio"]["parameters"]["rate_hz"] = 48_000
    (tmp_path / "other" / "cache.json").write_text(json.dumps(info))
    dataset = OVAVEBench.open(data)
    with pytest.raises(DatasetError, match="audio: rate_hz 48000, not 16000"):
        load_cached(FeatureCache.open(tmp_path / "other"), dataset, bundle, dataset.select("test"))


def test_a_cache_of_another_precision_is_refused_unless_asked_for(
    cache: Path, data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(cache, other)
    info = json.loads((cache / "cache.json").read_text()) | {"precision": "bf16"}
    (other / "cache.json").write_text(json.dumps(info))
    words = ["--data", str(data), "--bundle", str(exported_bundle), "--features", str(other), "--device", "cpu"]
    for command in (["score"], ["lag", "--out", str(tmp_path / "s"), "--seeds", "0"]):
        assert main(["eval", *command, *words]) == 1
        said = capsys.readouterr().err
        assert "was computed in bf16 and onnxruntime-cpu runs the bundle" in said
        assert "--any-precision" in said
        assert main(["eval", *command, *words, "--any-precision"]) == 0
        capsys.readouterr()


def test_sound_whose_channels_change_between_seconds_is_one_piece(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = OVAVEBench.open(data)
    clip = dataset.select("val")[0]
    windows = dataset.windows(clip)
    assert windows[0].waveform is not None
    stereo = replace(windows[0], waveform=windows[0].waveform.repeat(2, axis=0))
    monkeypatch.setattr(OVAVEBench, "windows", lambda _self, _clip, _rate_hz: [stereo, *windows[1:]])
    assert Dataset.media(dataset, clip).waveform.shape == (len(windows[1].waveform), 16_000 * len(windows))
