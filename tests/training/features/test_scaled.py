"""A cache that several processes and machines fill is that of one process, byte for byte."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from support.scaled import BUNDLE, wait_until
from support.training.caches import OVAVEL, SHARD, TINY, command, contents, poisoned, run, started

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.scale.places import prepare_aside
from ovavel.training.commands.features_scaled import _Filled
from ovavel.training.features import scaled
from ovavel.training.features.encoders import EncoderSource
from ovavel.training.features.extract import extract
from ovavel.training.features.scaled import Encoded, FeatureJob, FeatureWorker, clips_at_work
from ovavel.training.features.shards import CacheShard, cut_shards


@pytest.fixture
def job(broken: tuple[Path, Any], tiny_weights: Path, tmp_path: Path) -> FeatureJob:
    """What `command` does with the dataset `broken`."""
    source = EncoderSource(weights=(tiny_weights,), config=TINY, device="cpu", threads=1)
    bench = OVAVEBench.open(broken[0])
    prepare_aside(tmp_path)
    return FeatureJob(bench=bench, out=str(tmp_path), source=source, batch=2, workers=1, shard_clips=SHARD)


@pytest.fixture
def workers(job: FeatureJob) -> Iterator[Callable[[], FeatureWorker]]:
    """Makes workers, which end with the test."""
    made: list[FeatureWorker] = []

    def make() -> FeatureWorker:
        made.append(FeatureWorker(job))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def shards(job: FeatureJob) -> list[CacheShard]:
    return cut_shards(job.bench.clips, job.shard_clips)


def test_workers_in_any_order_write_the_files_of_one_process(
    job: FeatureJob, workers: Callable[[], FeatureWorker], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    two = [workers(), workers()]
    chance = random.Random(5)
    work = 2 * shards(job)
    chance.shuffle(work)
    outcomes = [chance.choice(two).process(shard) for shard in work]
    assert [outcome.state for outcome in outcomes].count("kept") == len(work) // 2
    assert contents(tmp_path) == uninterrupted
    assert sum(each.readable for each in outcomes if isinstance(each, Encoded)) == 6


def test_a_full_disk_leaves_nothing_half_written(
    job: FeatureJob, workers: Callable[[], FeatureWorker], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    worker, (first, *others) = workers(), shards(job)
    assert worker.process(first).state == "done"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        full = worker.process(others[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.state == "unwritable"
    assert "cannot write" in full.text
    assert not list((tmp_path / "aside").iterdir())
    assert [worker.process(shard).state for shard in others] == ["done"] * len(others)
    assert contents(tmp_path) == uninterrupted


def test_what_cannot_be_read_is_not_reported_as_written(
    job: FeatureJob, workers: Callable[[], FeatureWorker], tmp_path: Path
) -> None:
    worker, (first, *_) = workers(), shards(job)
    done = worker.process(first)
    assert isinstance(done, Encoded)
    index = Path(done.cache) / first.index
    index.unlink()
    index.mkdir()
    outcome = worker.process(first)
    assert (outcome.state, outcome.text) == ("failed", f"cannot read {index}: Is a directory; check it")


def test_other_embeddings_of_the_same_clips_are_an_error(
    job: FeatureJob, workers: Callable[[], FeatureWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another machine had finished meanwhile, with another library."""
    worker, (shard, *_) = workers(), shards(job)
    encode = scaled.encode_shard
    others: dict[Path, bytes] = {}

    def slower(*given: Any, **named: Any) -> dict[str, bytes]:
        files = encode(*given, **named)
        (root,) = (path.parent for path in tmp_path.glob("*/cache.json"))
        others.update({root / name: data for name, data in files.items()})
        index = json.loads(files[shard.index]) | {"array_sha256": "0" * 64}
        others[root / shard.index] = json.dumps(index).encode()
        for path, data in others.items():
            path.write_bytes(data)
        return files

    monkeypatch.setattr(scaled, "encode_shard", slower)
    outcome = worker.process(shard)
    assert outcome.state == "unequal"
    assert "the same libraries" in outcome.text
    assert {path: path.read_bytes() for path in others} == others


def test_a_process_that_fills_all_of_a_cache_keeps_others_out(
    job: FeatureJob, workers: Callable[[], FeatureWorker], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / Path(next(iter(uninterrupted))).parts[0]
    root.mkdir()
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        outcome = workers().process(shards(job)[0])
    finally:
        os.close(folder)
    assert (outcome.state, "another process is filling" in outcome.text) == ("unusable", True)


def test_a_machine_without_the_data_set_is_unusable_and_keeps_what_is_complete(
    job: FeatureJob, workers: Callable[[], FeatureWorker], tmp_path: Path
) -> None:
    """Its clips are not damaged, nor have they changed."""
    first, second, *_ = shards(job)
    assert workers().process(first).state == "done"
    before = contents(tmp_path)
    elsewhere = FeatureWorker(replace(job, bench=replace(job.bench, root=tmp_path / "not mounted")))
    outcomes = [elsewhere.process(shard) for shard in (first, second)]
    elsewhere.close()
    assert [outcome.state for outcome in outcomes] == ["unusable", "unusable"]
    assert "not mounted has no folder train" in outcomes[0].text
    assert contents(tmp_path) == before


def test_different_caches_end_the_run(job: FeatureJob) -> None:
    filled = _Filled(Console(quiet=True))
    first, second, *_ = shards(job)
    filled.add(first, Encoded(state="done", cache="/one"))
    with pytest.raises(DeviceError, match="different caches, /one and /other"):
        filled.add(second, Encoded(state="done", cache="/other"))


def test_clips_of_shards_at_work_are_counted(job: FeatureJob, tmp_path: Path) -> None:
    first, second, *others = shards(job)
    (tmp_path / "aside" / f"{first.name}.clips").write_text("2")
    (tmp_path / "aside" / f"{second.name}.clips").write_text("")
    (tmp_path / "aside" / f"{others[0].name}.clips").write_text("999")
    assert clips_at_work(tmp_path, shards(job)) == 2 + len(others[0].clips)


@pytest.mark.timeout(600)
def test_parts_together_are_the_whole_and_resume(
    broken: tuple[Path, Any],
    uninterrupted: dict[str, bytes],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = command(broken[0], tiny_weights, tmp_path)
    assert main([*words, "--shard", "2/2"]) == 0
    said = capsys.readouterr()
    assert "shard 2/2: 3 of 6 files of the cache" in said.err
    assert "9 of 16 clips are in the cache now" in said.out
    assert main([*words, "--shard", "1/2"]) == 0
    assert "6 of 16 clips could be read; 10 damaged" in capsys.readouterr().out
    assert contents(tmp_path) == uninterrupted
    assert main([*words]) == 0
    assert "0 clips encoded now; 16 were already in the cache" in capsys.readouterr().out
    assert contents(tmp_path) == uninterrupted


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.proof)])
def test_a_run_that_is_ended_leaves_no_process_and_resumes(
    number: signal.Signals,
    broken: tuple[Path, Any],
    uninterrupted: dict[str, bytes],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    words = [*OVAVEL, *command(broken[0], tiny_weights, tmp_path), "--shard", "1/1"]
    with started(words, {}) as process:
        wait_until(lambda: bool(list(tmp_path.glob("*/*-*.json"))), process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(100) in (130, -signal.SIGKILL, 0)  # 0: it was as good as done
    _, alive = psutil.wait_procs(children, timeout=100)
    assert not alive
    assert run(words, {}).returncode == 0
    assert {name: data for name, data in contents(tmp_path).items() if "aside" not in name} == uninterrupted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "--shard takes i/n"),
        (["--on", "somewhere"], "--on takes auto or ray://"),
        (["--on", "auto", "--device", "cuda:1"], "names a GPU of one machine"),
        (["--shard", "1/2", "--dry-run"], "is for one process"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "features", "--data", str(tmp_path), "--bundle", "x", "--out", str(tmp_path / "out")]
    assert main([*words, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_clips_that_end_processes_are_damaged_and_the_others_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad, variables, names = poisoned(tmp_path)
    installed = Path(variables["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.syspath_prepend(installed)
    source = EncoderSource(bundle=BUNDLE, backend="poisonous", device="cpu", threads=1)
    encoders = source.open()
    bench = OVAVEBench.open(good)
    clean = extract(bench, encoders, tmp_path / "clean", splits=["val"], shard_clips=SHARD)
    encoders.close()
    prepare_aside(tmp_path / "out")
    job = FeatureJob(bench=OVAVEBench.open(bad), out=str(tmp_path / "out"), source=source, workers=1, shard_clips=SHARD)
    first, second = cut_shards(job.bench.select("val"), SHARD)
    worker = FeatureWorker(job)
    # As if three actors had ended.
    assert worker.give_up(first, 3).state == "done"
    assert worker.process(second).state == "done"
    assert worker.process(first).state == "kept"
    worker.close()
    cache = FeatureCache.open(tmp_path / "out")
    assert sorted(name for _, name in cache.damaged) == names
    assert {damage.kind for damage in cache.damaged.values()} == {"ended its process"}
    left = [clip for clip in bench.select("val") if clip.name not in names]
    for ours, theirs in zip(cache.load(left)[1:3], clean.cache.load(left)[1:3], strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert (
        contents(tmp_path / "out").items()
        >= {name: data for name, data in contents(tmp_path / "clean").items() if "val-00000" not in name}.items()
    )


def test_a_faulty_decoder_in_a_shard_is_found_by_trial(job: FeatureJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the death of the process that encodes."""
    given_up: list[tuple[CacheShard, int]] = []
    monkeypatch.setattr(FeatureWorker, "give_up", lambda self, shard, killed: given_up.append((shard, killed)))

    def kill(*given: Any, **named: Any) -> dict[str, bytes]:
        raise scaled.DecoderKilledError("killed")

    monkeypatch.setattr(scaled, "encode_shard", kill)
    shard = shards(job)[0]
    FeatureWorker(job).process(shard)
    assert given_up == [(shard, 1)]
