"""Filling of a feature cache (`eval.datasets.feature_cache`): runs every clip of a dataset through the frozen encoders.

A shard is complete once its index is written, so an interrupted run resumes at the first shard without one. Batches
never span shards: a shard rebuilt after an interruption is the same, bit for bit on the same machine with the same
batch size, as in an uninterrupted run.

Shapes: n readable clips of a shard, T segments of a clip (10), B clips in a batch, D embedding size, P passes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ovavel.eval.datasets.feature_cache import (
    SEGMENTS,
    CacheInfo,
    ClipRecord,
    FeatureCache,
)
from ovavel.runtime.errors import OutputError, UsageError
from ovavel.runtime.pipeline.preprocess import preparations
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.features.batches import BatchEncoder
from ovavel.training.features.decode import (
    Decoder,
    damaged_note,
    select_clips,
)
from ovavel.training.features.encoders import Encoders
from ovavel.training.features.shards import CacheShard, cut_shards, encode_shard, shard_state, write_header

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset

__all__ = ["SHARD_CLIPS", "Extraction", "cache_info", "extract", "locked"]

SHARD_CLIPS = 256
"""Default clips per shard: 21 MB at D = 1024."""

_SPARE_BYTES = 32 * 2**20  # for indices and the temporary file of a shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """Summary of a run of `extract`."""

    cache: FeatureCache
    encoded: int
    """Clips encoded in this run."""
    kept: int
    """Clips that were in the cache already, including damaged ones."""
    renewed: int
    """Shards rebuilt because files of their clips have changed."""
    seconds: float
    """Time spent decoding and encoding."""


def cache_info(bench: Dataset, encoders: Encoders, *, shard_clips: int = SHARD_CLIPS) -> CacheInfo:
    """Describe the cache of `bench` for `encoders`; its fingerprint names the folder."""
    return CacheInfo(
        model=encoders.model,
        weights_sha256=encoders.weights_sha256,
        graphs_sha256=encoders.graphs_sha256,
        tokenizer_sha256=encoders.tokenizer_sha256,
        backend=encoders.backend.info.name,
        device=encoders.device,
        precision=encoders.precision,
        encoders=encoders.backend.encoders,
        dataset_fingerprint=bench.fingerprint,
        shard_clips=shard_clips,
        names=tuple(bench.names),
        clips=dict(sorted(Counter(clip.split for clip in bench.clips).items())),
        passes=encoders.passes or msgspec.UNSET,
    )


def extract(
    bench: Dataset,
    encoders: Encoders,
    out: Path,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    batch: int = 1,
    workers: int = 1,
    shard_clips: int = SHARD_CLIPS,
    progress: Progress = no_progress,
) -> Extraction:
    """Encode every clip of `splits` that the cache in `out` lacks.

    Args:
        bench: the dataset.
        encoders: the encoders; they stay open.
        out: folder of caches; this one goes into a subfolder named after the cache's fingerprint.
        splits: the splits to encode. Other runs may add other splits.
        batch: B, the number of clips encoded at once.
        workers: number of decoding processes.
        shard_clips: clips per shard, and so the most that an interruption can lose.
        progress: called for every clip.

    Raises:
        ValueError: a number is not positive.
        UsageError: there is no such split, or another process is filling this cache.
        DatasetError: the folder holds something else.
        DeviceError: memory ran out; completed shards are kept, as with every other error.
        OutputError: the disk is full or not writable.
    """
    if min(batch, shard_clips) < 1:
        raise ValueError(f"a batch and a shard need at least one clip, not {batch} and {shard_clips}")
    clips = select_clips(bench, splits)
    info = cache_info(bench, encoders, shard_clips=shard_clips)
    root = out / info.fingerprint[:16]
    bench.check_media()  # where it is not mounted, its clips are not damaged, nor have they changed
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            for leftover in root.glob(".*.part"):  # of a process that was killed while writing
                leftover.unlink()
            write_header(root, info, encoders)
            shards = cut_shards(clips, shard_clips)
            finished, renewed = _survey(root, info, bench, shards, progress)
            to_do = [shard for shard in shards if shard not in finished]
            _check_free_space(root, info, to_do)
            started_s = time.monotonic()
            if to_do:
                found = preparations(encoders.backend.encoders)
                prepared_by = (found["vision"].name, found["audio"].name)
                with Decoder(bench, workers=workers, ahead=batch, prepared_by=prepared_by) as decoder:
                    _fill(root, encoders, decoder, to_do, batch, progress, kept=sum(len(s.clips) for s in finished))
            seconds = time.monotonic() - started_s
    except OSError as error:
        raise output_error(root, error) from error
    cache = FeatureCache.open(root)
    return Extraction(
        cache=cache,
        encoded=sum((clip.split, clip.name) not in cache.damaged for shard in to_do for clip in shard.clips),
        kept=sum(len(shard.clips) for shard in finished),
        renewed=renewed,
        seconds=seconds,
    )


@contextlib.contextmanager
def locked(root: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes from filling the same cache, or, `shared`, only one that fills all of it.

    The lock is released however the process ends.

    Raises:
        UsageError: another process holds it.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process is filling {root}; wait for it to finish, or stop it") from error
        yield
    finally:
        os.close(folder)


def _survey(
    root: Path, info: CacheInfo, bench: Dataset, shards: Sequence[CacheShard], progress: Progress
) -> tuple[list[CacheShard], int]:
    """Return the complete shards; invalidate and count those whose clips' files have changed since."""
    finished, renewed, total = [], 0, sum(len(shard.clips) for shard in shards)
    done = 0
    for shard in shards:
        progress("checking finished shards", done, total)
        done += len(shard.clips)
        state = shard_state(root, info, bench, shard)
        if state == "complete":
            finished.append(shard)
        elif state == "changed":
            (root / shard.index).unlink()  # before the array: an index must never belong to another array
            renewed += 1
    return finished, renewed


def _check_free_space(root: Path, info: CacheInfo, shards: Sequence[CacheShard]) -> None:
    clips, need = 0, _SPARE_BYTES
    for shard in shards:
        passes = info.passes_of(shard.split)
        values = sum(info.encoders.sizes) + (passes.count * info.encoders.sizes[0] if passes else 0)
        clips += len(shard.clips)
        need += len(shard.clips) * SEGMENTS * values * 4
    free = shutil.disk_usage(root).free
    if clips and free < need:
        raise OutputError(
            f"{root} has {free / 1e9:.1f} GB free and {clips} clips need {need / 1e9:.1f} GB; free some space or "
            "choose another folder"
        )


def _fill(
    root: Path,
    encoders: Encoders,
    decoder: Decoder,
    shards: Sequence[CacheShard],
    batch: int,
    progress: Progress,
    *,
    kept: int,
) -> None:
    """Decode, encode and write the shards one by one."""
    done, damaged, total = kept, 0, kept + sum(len(shard.clips) for shard in shards)

    def report(record: ClipRecord) -> None:
        nonlocal done, damaged
        done += 1
        damaged += record.damage is not None
        progress("encoding", done, total, damaged_note(damaged))

    encoder = BatchEncoder(encoders, batch)
    stream = decoder.decode(clip for shard in shards for clip in shard.clips)
    for shard in shards:
        for name, data in encode_shard(shard, stream, encoder, report).items():
            atomic_write(root / name, data)
