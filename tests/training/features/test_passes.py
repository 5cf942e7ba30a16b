"""Further passes of the training clips' sound: what is in the cache, resuming, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.clip_clap_folders import clap_folder, clip_folder
from support.made_once import made_once
from support.training.caches import SHARD, TINY, command, contents

from ovavel.eval.datasets.audio_passes import AudioPasses
from ovavel.eval.datasets.dataset import Clip
from ovavel.eval.datasets.feature_cache import FeatureCache, ShardIndex
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.pipeline.preprocess import prepare_waveform
from ovavel.training.features.encoders import Encoders, checkpoint_encoders
from ovavel.training.features.extract import cache_info, extract

PASSES = AudioPasses(count=2, drop_path=0.3)


@pytest.fixture(scope="module")
def noisy(tiny_weights: Path) -> Encoders:
    return checkpoint_encoders(tiny_weights, TINY, device="cpu", passes=PASSES)


@pytest.fixture(scope="module")
def made(whole: Path, noisy: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with passes; do not change it."""

    def make(folder: Path) -> None:
        extract(OVAVEBench.open(whole), noisy, folder, batch=2, shard_clips=SHARD)

    return made_once(tmp_path_factory, "features-with-passes", make)


def test_training_clips_have_passes_and_all_else_is_clean(
    whole: Path, encoders: Encoders, noisy: Encoders, made: Path, tmp_path: Path
) -> None:
    bench, cache = OVAVEBench.open(whole), FeatureCache.open(made)
    clean = extract(bench, encoders, tmp_path, batch=2, shard_clips=SHARD).cache
    assert cache.path.name != clean.path.name
    assert cache.info.passes == PASSES
    for split in ("train", "val", "test"):
        clips = bench.select(split)
        ours, theirs = cache.load(clips), clean.load(clips)
        assert np.array_equal(ours.audio, theirs.audio)
        assert np.array_equal(ours.vision, theirs.vision)
        assert clean.audio_passes(clips) is None
        assert (cache.audio_passes(clips) is None) == (split != "train")
    assert {file.name for file in cache.path.glob("*.passes.npy")} == {
        "train-00000.passes.npy",
        "train-00001.passes.npy",
    }
    clips = bench.select("train")[::-1]
    reader, audio = cache.audio_passes(clips), cache.load(clips).audio
    assert reader
    assert reader.count == 2
    found = [reader.take(np.full(len(clips), number)) for number in range(2)]
    for each in found:
        assert each.shape == audio.shape
        assert np.linalg.norm(each, axis=-1) == pytest.approx(1, abs=1e-5)
        assert (np.abs(each - audio).max(axis=(1, 2)) > 1e-3).all()
    assert (np.abs(found[0] - found[1]).max(axis=(1, 2)) > 1e-3).all()
    mixed = reader.take(np.array([0, 1, 1, 0]))
    assert np.array_equal(mixed, np.stack([found[0][0], found[1][1], found[1][2], found[0][3]]))
    # Of a clip alone, in a batch of its own: what is left out depends on the clip and the pass.
    prepared = _prepared(bench, clips[1])
    alone = noisy.encode_passes(prepared, [clips[1]])
    np.testing.assert_allclose(alone[0], np.stack([found[0][1], found[1][1]]), atol=2e-6)
    assert np.abs(noisy.encode_passes(prepared, [clips[2]]) - alone).max() > 1e-3


def _prepared(bench: OVAVEBench, clip: Clip) -> np.ndarray:
    windows = bench.windows(clip)
    return np.stack([prepare_waveform(w.waveform) for w in windows if w.waveform is not None])[np.newaxis]


def test_without_a_rate_the_passes_are_the_clean_embeddings(whole: Path, tiny_weights: Path, tmp_path: Path) -> None:
    bench = OVAVEBench.open(whole)
    still = checkpoint_encoders(tiny_weights, TINY, device="cpu", passes=AudioPasses(count=1, drop_path=0.0))
    cache = extract(bench, still, tmp_path, splits=["train"], batch=2).cache
    clips = bench.select("train")
    reader = cache.audio_passes(clips)
    assert reader
    assert np.array_equal(reader.take(np.zeros(len(clips), int)), cache.load(clips).audio)


@pytest.mark.parametrize("moment", [1, 3, 4])
def test_an_interrupted_run_resumes_with_the_same_result(
    whole: Path, noisy: Encoders, made: Path, tmp_path: Path, moment: int
) -> None:
    bench = OVAVEBench.open(whole)

    def interrupt(what: str, done: float, *_: object) -> None:
        if what == "encoding" and done == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(bench, noisy, tmp_path, batch=2, shard_clips=SHARD, progress=interrupt)
    extract(bench, noisy, tmp_path, batch=2, shard_clips=SHARD)
    assert contents(tmp_path) == contents(made)


def test_a_shard_without_its_passes_is_made_again(whole: Path, noisy: Encoders, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "cache")
    next(tmp_path.rglob("train-00001.passes.npy")).unlink()
    done = extract(OVAVEBench.open(whole), noisy, tmp_path / "cache", batch=2, shard_clips=SHARD)
    assert done.encoded == 1
    assert contents(tmp_path / "cache") == contents(made)


def test_damaged_passes_are_refused(whole: Path, made: Path, tmp_path: Path) -> None:
    clips = OVAVEBench.open(whole).select("train")
    for number, change in enumerate((b"", None)):
        shutil.copytree(made, tmp_path / str(number))
        file = next((tmp_path / str(number)).rglob("train-00001.passes.npy"))
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data if change is None else change)
        cache = FeatureCache.open(tmp_path / str(number))
        assert len(cache.load(clips).clips) == len(clips)  # the clean embeddings do not need them
        reader = cache.audio_passes(clips)
        assert reader
        with pytest.raises(DatasetError, match=r"train-00001.passes.npy.*train-00001.json"):
            reader.take(np.zeros(len(clips), int))
    index = next((tmp_path / "0").rglob("train-00000.json"))
    shard = msgspec.json.decode(index.read_bytes(), type=ShardIndex)
    index.write_bytes(msgspec.json.encode(msgspec.structs.replace(shard, passes_sha256=None)))
    with pytest.raises(DatasetError, match="lists no passes"):
        FeatureCache.open(tmp_path / "0").audio_passes(clips)


def test_number_and_rate_are_part_of_the_identity(whole: Path, encoders: Encoders) -> None:
    bench = OVAVEBench.open(whole)
    kinds = (None, PASSES, AudioPasses(count=3, drop_path=0.3), AudioPasses(count=2, drop_path=0.1))
    infos = [cache_info(bench, replace(encoders, passes=each)) for each in kinds]
    assert len({info.fingerprint for info in infos}) == 4
    assert b"passes" not in msgspec.json.encode(infos[0])  # caches without passes are what they were before


def test_the_command_makes_them(
    whole: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(whole, tiny_weights, tmp_path / "out")
    assert main([*flags, "--splits", "train", "--passes", "1"]) == 0
    assert "training clips have 1 pass with stochastic depth 0.1 in the audio encoder" in capsys.readouterr().out
    assert FeatureCache.open(tmp_path / "out").info.passes == AudioPasses(count=1, drop_path=0.1)
    assert main([*flags, "--splits", "train"]) == 0
    with pytest.raises(DatasetError, match=r"holds 2 feature caches.*1 pass with stochastic depth 0.1"):
        FeatureCache.open(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "b", "--passes", "2"], "--passes needs the encoder in PyTorch: give --weights"),
        (["--weights", "w", "--drop-path", "0.1"], "--drop-path is the rate of --passes"),
        (["--weights", "w", "--passes", "2", "--drop-path", "1"], "--drop-path"),
        (["--weights", "w", "--passes", "2", "--drop-path", "0"], "--drop-path"),
        (["--weights", "w", "--passes", "-1"], "--passes"),
    ],
    ids=str,
)
def test_the_command_refuses(
    whole: Path, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["train", "features", "--data", str(whole), "--out", str(tmp_path / "out"), *options])
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_encoders_without_stochastic_depth_are_refused(tmp_path: Path) -> None:
    folders = [clip_folder(tmp_path / "clip"), clap_folder(tmp_path / "clap")]
    with pytest.raises(UsageError, match=r"is for ImageBind.*clip and clap is not"):
        checkpoint_encoders(folders, device="cpu", passes=PASSES)
