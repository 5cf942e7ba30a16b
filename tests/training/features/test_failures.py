"""Full disks, too little memory, killed processes and non-finite values."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from support.training.caches import SHARD, TINY

from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import DeviceError, OutputError, UsageError
from ovavel.training.features.encoders import Encoders
from ovavel.training.features.extract import cache_info, extract


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


def test_running_out_of_memory_is_reported_and_can_be_resumed(
    whole: Path, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = encoders.backend.audio

    def audio(log_mels: np.ndarray) -> np.ndarray:
        """Fails like PyTorch on a GPU when given more than one clip at once."""
        if len(log_mels) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand much more")
        return plain(log_mels)

    monkeypatch.setattr(encoders.backend, "audio", audio)
    bench = OVAVEBench.open(whole)
    with pytest.raises(DeviceError, match=r"2 clips at once failed \(CUDA out of memory.*smaller --batch"):
        extract(bench, encoders, tmp_path, splits=["val"], batch=2, shard_clips=SHARD)
    assert extract(bench, encoders, tmp_path, splits=["val"], batch=1, shard_clips=SHARD).encoded == 6


def test_a_decoding_process_that_is_killed_ends_the_run(whole: Path, encoders: Encoders, tmp_path: Path) -> None:
    def kill(what: str, done: float, *_: object) -> None:
        if what == "encoding" and done == 1:
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()

    with pytest.raises(DeviceError, match="fewer --workers"):
        extract(OVAVEBench.open(whole), encoders, tmp_path, shard_clips=SHARD, progress=kill)


def test_non_finite_embeddings_are_refused(
    whole: Path, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        encoders.backend, "audio", lambda log_mels: np.full((len(log_mels), TINY.embedding_size), np.nan, np.float32)
    )
    with pytest.raises(DeviceError, match="non-finite values in fp32"):
        extract(OVAVEBench.open(whole), encoders, tmp_path)
