"""The files of a cache do not depend on interruptions."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.ovavebench_factory import break_clip, make_bench
from support.training.caches import CLASSES, OVAVEL, SHARD, command, contents

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import DatasetError
from ovavel.training.features.encoders import Encoders
from ovavel.training.features.extract import extract


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


def _until(condition: Callable[[], bool], limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "times"),
    [
        pytest.param("kill", 10, marks=pytest.mark.proof),
        pytest.param("kill", 4, marks=pytest.mark.proof),
        ("terminate", 3),
    ],
)
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
