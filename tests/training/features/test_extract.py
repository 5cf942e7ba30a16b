"""Filling a feature cache with real encoders from real files: the result does not depend on interruptions."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from support.golden_weights import write_golden_checkpoint
from support.ovavebench_factory import DAMAGE, break_clip, make_bench

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError, DeviceError, InputError, OutputError, UsageError
from ovavel.runtime.pipeline.preprocess import prepare_frame, prepare_waveform
from ovavel.training.demo_world.captions import demo_tokenizer
from ovavel.training.features.decode import decode_only, select_clips
from ovavel.training.features.encoders import Encoders, bundle_encoders, checkpoint_encoders
from ovavel.training.features.extract import cache_info, extract
from ovavel.training.models.imagebind.model import ImageBindConfig
from ovavel.training.models.tokenizer import clip_tokenizer, model_tokenizer

TINY = ImageBindConfig.tiny()
SHARD = 3
CLASSES = {"seen": ("cat purring", "race car"), "unseen": ("dog barking",)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 4 clips for train, 6 for val and 6 for test; do not change it."""
    return make_bench(tmp_path_factory.mktemp("whole"), **CLASSES)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], str]]:
    """Return a dataset with one clip of each kind of damage, and the damaged clips; do not change it."""
    root = make_bench(tmp_path_factory.mktemp("broken"), **CLASSES)
    clips = OVAVEBench.open(root).clips
    chosen = dict(zip(random.Random(1).sample(range(len(clips)), len(DAMAGE)), DAMAGE, strict=True))
    for index, kind in chosen.items():
        break_clip(root, clips[index], kind)
    return root, {(clips[index].split, clips[index].name): kind for index, kind in chosen.items()}


@pytest.fixture(scope="module")
def encoders(tiny_weights: Path) -> Encoders:
    return checkpoint_encoders(tiny_weights, TINY, device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, broken: tuple[Path, dict[tuple[str, str], str]], encoders: Encoders
) -> dict[str, bytes]:
    """Return the files of a cache of `broken` from an uninterrupted run."""
    out = tmp_path_factory.mktemp("uninterrupted")
    extract(OVAVEBench.open(broken[0]), encoders, out, batch=2, shard_clips=SHARD)
    return contents(out)


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


def test_the_vocabulary_of_a_bundle_is_ignored(tiny_bundle: Path) -> None:
    from ovavel.runtime.bundle.bundle import Bundle

    before = bundle_encoders(tiny_bundle, device="cpu", threads=1).graphs_sha256
    bundle = Bundle.open(tiny_bundle)
    bundle.save_vocabulary(bundle.vocabulary.removed(["race car"]))
    assert bundle_encoders(tiny_bundle, device="cpu", threads=1).graphs_sha256 == before


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


@pytest.mark.parametrize("seed", range(4))
def test_an_interrupted_run_resumes_with_the_same_result(
    broken: tuple[Path, Any], uninterrupted: dict[str, bytes], encoders: Encoders, tmp_path: Path, seed: int
) -> None:
    bench, moment = OVAVEBench.open(broken[0]), random.Random(seed).randint(1, 16)

    def interrupt(what: str, done: float, *_: object) -> None:
        if what == "encoding" and done == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(bench, encoders, tmp_path, batch=2, shard_clips=SHARD, progress=interrupt)
    rest = extract(bench, encoders, tmp_path, batch=2, shard_clips=SHARD)
    assert rest.kept <= moment
    assert contents(tmp_path) == uninterrupted


def test_splits_can_be_added_one_by_one(
    broken: tuple[Path, Any], uninterrupted: dict[str, bytes], encoders: Encoders, tmp_path: Path
) -> None:
    bench = OVAVEBench.open(broken[0])
    for split in ("test", "train"):
        extract(bench, encoders, tmp_path, splits=[split], batch=2, shard_clips=SHARD)
    with pytest.raises(DatasetError, match="lacks 6 of 6 clips"):
        FeatureCache.open(tmp_path).load(bench.select("val"))
    done = extract(bench, encoders, tmp_path, batch=2, shard_clips=SHARD)
    assert done.kept == 10
    assert contents(tmp_path) == uninterrupted


def test_changed_clips_are_encoded_again(tmp_path: Path, encoders: Encoders) -> None:
    root = make_bench(tmp_path / "data", **CLASSES)
    clips = OVAVEBench.open(root).select("val")
    sound = OVAVEBench.open(root).audio_path(clips[0])
    good = sound.read_bytes()
    break_clip(root, clips[0], "sound unreadable")
    bench = OVAVEBench.open(root)

    def again() -> tuple[int, int, FeatureCache]:
        done = extract(bench, encoders, tmp_path / "out", splits=["val"], shard_clips=SHARD)
        return done.encoded, done.renewed, done.cache

    assert again()[:2] == (5, 0)
    assert again()[:2] == (0, 0)
    sound.write_bytes(good)
    encoded, renewed, cache = again()
    assert (encoded, renewed) == (3, 1)
    assert not cache.damaged
    shutil.copy(bench.frames_dir(clips[1]) / "0.jpg", bench.frames_dir(clips[5]) / "0.jpg")
    assert again()[:2] == (3, 1)
    assert again()[:2] == (0, 0)


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


def test_two_processes_do_not_fill_one_cache(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    bench = OVAVEBench.open(whole)
    root = tmp_path / cache_info(bench, encoders).fingerprint[:16]
    root.mkdir()
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is filling"):
            extract(bench, encoders, tmp_path)
    finally:
        os.close(folder)


def test_a_full_disk_is_reported_before_and_during_the_run(
    whole: Path, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = OVAVEBench.open(whole)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
        with pytest.raises(OutputError, match="free some space"):
            extract(bench, encoders, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(what: str, done: float, *_: object) -> None:
        if what == "encoding" and done == 4:  # like a disk that is full after the first shard
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))

    try:
        with pytest.raises(OutputError, match="cannot write"):
            extract(bench, encoders, tmp_path, shard_clips=SHARD, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    done = extract(bench, encoders, tmp_path, shard_clips=SHARD)
    assert done.kept == SHARD
    assert not list(tmp_path.rglob("*.part"))


def test_running_out_of_memory_is_reported_and_can_be_resumed(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    backend = encoders.backend

    class Short:
        """Fails like PyTorch on a GPU when given more than one clip at once."""

        info = backend.info
        encoders = backend.encoders
        text = staticmethod(backend.text)
        vision = staticmethod(backend.vision)

        @staticmethod
        def audio(log_mels: np.ndarray) -> np.ndarray:
            if len(log_mels) > 10:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand much more")
            return backend.audio(log_mels)

    bench, short = OVAVEBench.open(whole), dataclasses.replace(encoders, backend=Short())  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"2 clips at once failed \(CUDA out of memory.*smaller --batch"):
        extract(bench, short, tmp_path, splits=["val"], batch=2, shard_clips=SHARD)
    assert extract(bench, short, tmp_path, splits=["val"], batch=1, shard_clips=SHARD).encoded == 6


def test_a_decoding_process_that_is_killed_ends_the_run(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    def kill(what: str, done: float, *_: object) -> None:
        if what == "encoding" and done == 1:
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()

    with pytest.raises(DeviceError, match="fewer --workers"):
        extract(OVAVEBench.open(whole), encoders, tmp_path, shard_clips=SHARD, progress=kill)


def test_non_finite_embeddings_are_refused(whole: Path, tiny_weights: Path, tmp_path: Path, encoders: Encoders) -> None:
    backend = encoders.backend

    class Overflowing:
        info = backend.info
        encoders = backend.encoders
        text = staticmethod(backend.text)
        vision = staticmethod(backend.vision)

        @staticmethod
        def audio(log_mels: np.ndarray) -> np.ndarray:
            return np.full((len(log_mels), TINY.embedding_size), np.nan, np.float32)

    bad = dataclasses.replace(encoders, backend=Overflowing())  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="non-finite values in fp32"):
        extract(OVAVEBench.open(whole), bad, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"shard_clips": 0}, {"workers": 0}, {"splits": ["all"]}, {"splits": []}],
    ids=str,
)
def test_invalid_options_are_refused(whole: Path, encoders: Encoders, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        extract(OVAVEBench.open(whole), encoders, tmp_path, **wrong)


def test_a_tokenizer_must_match_the_model(tiny_weights: Path, tmp_path: Path) -> None:
    small = dataclasses.replace(TINY, vocabulary=100)
    with pytest.raises(UsageError, match="--tokenizer"):
        checkpoint_encoders(tiny_weights, small, device="cpu")
    (tmp_path / "clip.json").write_bytes(clip_tokenizer())
    with pytest.raises(UsageError, match="49408 tokens"):
        checkpoint_encoders(tiny_weights, small, device="cpu", tokenizer=tmp_path / "clip.json")
    # The control tokens of the demo world's tokenizer, 393 and 394, are not in its vocabulary.
    (tmp_path / "demo.json").write_bytes(demo_tokenizer())
    with pytest.raises(UsageError, match="395 tokens"):
        model_tokenizer(tmp_path / "demo.json", model="tiny", vocabulary=393)
    assert model_tokenizer(tmp_path / "demo.json", model="tiny", vocabulary=395) == demo_tokenizer()
    short = demo_tokenizer().replace(b"77", b"64")
    (tmp_path / "short.json").write_bytes(short)
    with pytest.raises(UsageError, match="rows of 64"):
        model_tokenizer(tmp_path / "short.json", model="tiny", vocabulary=TINY.vocabulary)
    for content in (b"{}", b"\xff"):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(InputError, match="not a tokenizer"):
            model_tokenizer(tmp_path / "broken.json", model="tiny", vocabulary=TINY.vocabulary)
    with pytest.raises(InputError, match="cannot read"):
        model_tokenizer(tmp_path / "none.json", model="tiny", vocabulary=TINY.vocabulary)


def test_fp16_is_refused_on_cpus(tiny_weights: Path) -> None:
    with pytest.raises(UsageError, match="bf16"):
        checkpoint_encoders(tiny_weights, TINY, device="cpu", precision="fp16")


def test_a_dry_run_measures_decoding(broken: tuple[Path, dict[tuple[str, str], str]]) -> None:
    bench = OVAVEBench.open(broken[0])
    result = decode_only(bench, select_clips(bench, ["val", "test"]), workers=1)
    assert result.clips == 12
    assert set(result.damaged) == {key for key in broken[1] if key[0] != "train"}
    assert result.segments_per_s > 1


OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")
"""Also works where the environment's scripts are not on the PATH."""


def command(data: Path, weights: Path, out: Path) -> list[str]:
    options = ["--config", "tiny", "--device", "cpu", "--batch", "2", "--threads", "1", "--shard-clips", str(SHARD)]
    return ["train", "features", "--data", str(data), "--weights", str(weights), "--out", str(out), *options]


def test_the_command_prints_a_summary(
    broken: tuple[Path, Any],
    uninterrupted: dict[str, bytes],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(broken[0], tiny_weights, tmp_path)) == 0
    reported = capsys.readouterr().out
    assert re.search(r"6 clips encoded now, [\d.]+ segments/s; 0 were there already", reported)
    assert "6 of 16 clips could be read; 10 damaged" in reported
    assert str(FeatureCache.open(tmp_path).path) in reported
    assert contents(tmp_path) == uninterrupted
    assert main(["train", "features", "--data", str(broken[0]), "--dry-run", "--splits", "train"]) == 0
    assert re.search(r"[\d.]+ segments/s with \d+ process", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x"], "either --weights or --bundle"),
        (["--out", "x", "--weights", "w", "--bundle", "b"], "either --weights or --bundle"),
        (["--weights", "w"], "give --out"),
        (["--out", "x", "--bundle", "b", "--precision", "bf16"], "are for --weights"),
        (["--out", "x", "--weights", "none.pth", "--config", "tiny"], "none.pth"),
        (["--out", "x", "--bundle", "none"], "no bundle at none"),
        (["--dry-run", "--splits", "training"], "the splits"),
    ],
    ids=str,
)
def test_the_command_reports_errors(
    whole: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "features", "--data", str(whole), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("ovavel: ")
    assert message in error


def _until(condition: Callable[[], bool], limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "times"), [("kill", 10), ("terminate", 5)])
def test_a_run_killed_at_random_moments_gives_the_same_files(
    broken: tuple[Path, Any], uninterrupted: dict[str, bytes], tiny_weights: Path, tmp_path: Path, end: str, times: int
) -> None:
    rng = random.Random(end)
    hits = 0
    for shards in [min(6 * number // times, 4) for number in range(times)]:
        run = psutil.Popen(
            [*OVAVEL, *command(broken[0], tiny_weights, tmp_path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _until(lambda n=shards, run=run: len(list(tmp_path.glob("*/*-*.json"))) >= n or run.poll() is not None, 60)
        time.sleep(rng.uniform(0, 3 if shards == 0 else 0.1))
        children = run.children(recursive=True)
        getattr(run, end)()
        hits += run.wait(100) != 0
        _until(lambda gone=children: not any(map(psutil.Process.is_running, gone)), 100)
    assert hits >= 3  # the other runs finished before the kill
    assert subprocess.run([*OVAVEL, *command(broken[0], tiny_weights, tmp_path)], capture_output=True).returncode == 0
    assert contents(tmp_path) == uninterrupted
