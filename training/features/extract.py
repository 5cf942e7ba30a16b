"""Fills a feature cache (`eval.datasets.feature_cache`): every clip of a dataset once through the frozen encoders.

A shard is done when its index is written, so work that was cut continues with the first shard that has none. The clips
of a shard are encoded in batches that begin with the shard: a shard made again after an interruption is the same, bit
for bit on the same machine with the same batch, as one made in one go.

Shapes: n clips of a shard that could be read, T segments of a clip (10), B clips in a batch, D embedding size.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.feature_cache import (
    CACHE,
    SEGMENTS,
    TEXT,
    CacheInfo,
    ClipRecord,
    FeatureCache,
    ShardIndex,
    shard_names,
)
from ovavel.runtime.errors import DatasetError, DeviceError, OutputError, UsageError
from ovavel.runtime.pipeline.preprocess import FRAME_SIZE, MEL_BINS, MEL_FRAMES
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.training.features.decode import (
    Decoded,
    Decoder,
    Progress,
    select_clips,
    silent,
    source_bytes,
    source_record,
)
from ovavel.training.features.encoders import Encoders

if TYPE_CHECKING:
    from ovavel.eval.datasets.ovavebench import Clip, OVAVEBench

__all__ = ["SHARD_CLIPS", "Extraction", "cache_info", "extract"]

SHARD_CLIPS = 256
"""Clips of a shard by default: 21 MB at D = 1024."""

_ROOM_BYTES = 32 * 2**20  # for indices and the shard that is written aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What a run of `extract` did."""

    cache: FeatureCache
    encoded: int
    """Clips that were encoded now."""
    kept: int
    """Clips that were there already, damaged ones among them."""
    renewed: int
    """Shards that were made again because files of their clips have changed."""
    seconds: float
    """How long decoding and encoding took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    split: str
    number: int
    clips: tuple[Clip, ...]


def cache_info(bench: OVAVEBench, encoders: Encoders, *, shard_clips: int = SHARD_CLIPS) -> CacheInfo:
    """Describe the cache of `bench` by `encoders`; its fingerprint names the folder."""
    return CacheInfo(
        model=encoders.model,
        weights_sha256=encoders.weights_sha256,
        graphs_sha256=encoders.graphs_sha256,
        tokenizer_sha256=encoders.tokenizer_sha256,
        backend=encoders.backend.info.name,
        device=encoders.device,
        precision=encoders.precision,
        embedding_size=encoders.embedding_size,
        dataset_fingerprint=bench.fingerprint,
        shard_clips=shard_clips,
        names=tuple(bench.names),
        clips=dict(sorted(Counter(clip.split for clip in bench.clips).items())),
    )


def extract(
    bench: OVAVEBench,
    encoders: Encoders,
    out: Path,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    batch: int = 1,
    workers: int = 1,
    shard_clips: int = SHARD_CLIPS,
    progress: Progress = silent,
) -> Extraction:
    """Encode every clip of `splits` that the cache in `out` lacks.

    Args:
        bench: the dataset.
        encoders: what to encode with; they stay open.
        out: folder of caches; this one goes into a folder of it that is named by the cache's fingerprint.
        splits: which clips. Other splits may be added by another run.
        batch: B, clips that are encoded at once.
        workers: processes that decode.
        shard_clips: clips of a shard, and so how much is lost at most when the run is cut.
        progress: called for every clip.

    Raises:
        UsageError: a number is not positive, there is no such split, or another process is filling this cache.
        DatasetError: the folder holds something else.
        DeviceError: memory ran out; what is done is kept, as with every other error.
        OutputError: the disk is full or may not be written to.
    """
    if min(batch, shard_clips) < 1:
        raise UsageError(f"a batch and a shard need at least one clip, not {batch} and {shard_clips}")
    clips = select_clips(bench, splits)
    info = cache_info(bench, encoders, shard_clips=shard_clips)
    root = out / info.fingerprint[:16]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            _begin(root, info, encoders)
            shards = _shards(clips, shard_clips)
            finished, renewed = _survey(root, bench, shards, progress)
            to_do = [shard for shard in shards if shard not in finished]
            _check_room(root, info, sum(len(shard.clips) for shard in to_do))
            started_s = time.monotonic()
            if to_do:
                with Decoder(bench, workers=workers, ahead=batch) as decoder:
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


def _shards(clips: Sequence[Clip], shard_clips: int) -> list[_Shard]:
    """Cut each split into shards; which clip is where depends on the dataset alone."""
    shards = []
    for split in dict.fromkeys(clip.split for clip in clips):
        ours = [clip for clip in clips if clip.split == split]
        shards += [
            _Shard(split=split, number=number, clips=tuple(ours[start : start + shard_clips]))
            for number, start in enumerate(range(0, len(ours), shard_clips))
        ]
    return shards


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other processes from filling the same cache; the lock ends with the process, however it ends."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process is filling {root}; wait for it, or end it") from error
        for leftover in root.glob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()
        yield
    finally:
        os.close(folder)


def _begin(root: Path, info: CacheInfo, encoders: Encoders) -> None:
    """Write the text embeddings and `cache.json`, unless they are there."""
    content = msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"
    if (root / CACHE).exists():
        if (root / CACHE).read_bytes() != content:
            raise DatasetError(f"{root / CACHE} does not describe the cache that its folder is named after; delete it")
        return
    text = encoders.embed(info.names)
    _check_finite(text, encoders)
    atomic_write(root / TEXT, _npy(text))
    atomic_write(root / CACHE, content)


def _survey(root: Path, bench: OVAVEBench, shards: Sequence[_Shard], progress: Progress) -> tuple[list[_Shard], int]:
    """Return the shards that are done, and remove and count those whose clips' files have changed since."""
    finished, renewed, total = [], 0, sum(len(shard.clips) for shard in shards)
    done = 0
    for shard in shards:
        array, index = (root / name for name in shard_names(shard.split, shard.number))
        progress("looking at what is done", done, total, 0)
        done += len(shard.clips)
        if not (index.exists() and array.exists()):
            continue
        try:
            records = msgspec.json.decode(index.read_bytes(), type=ShardIndex).clips
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            records = ()
        if len(records) == len(shard.clips) and all(map(_unchanged, records, shard.clips, [bench] * len(records))):
            finished.append(shard)
        else:
            index.unlink()  # before the array: whatever happens, no index may stand beside another array
            renewed += 1
    return finished, renewed


def _unchanged(record: ClipRecord, clip: Clip, bench: OVAVEBench) -> bool:
    """Whether the clip's files are as they were: by their size, and where it was damaged, by their contents."""
    if record.name != clip.name or record.bytes != source_bytes(bench, clip):
        return False
    return record.damage is None or record.sha256 == source_record(bench, clip).sha256


def _check_room(root: Path, info: CacheInfo, clips: int) -> None:
    need = clips * 2 * SEGMENTS * info.embedding_size * 4 + _ROOM_BYTES
    free = shutil.disk_usage(root).free
    if clips and free < need:
        raise OutputError(
            f"{root} has {free / 1e9:.1f} GB free and {clips} clips need {need / 1e9:.1f} GB; free some space or "
            "choose another place"
        )


def _fill(
    root: Path,
    encoders: Encoders,
    decoder: Decoder,
    shards: Sequence[_Shard],
    batch: int,
    progress: Progress,
    *,
    kept: int,
) -> None:
    """Decode, encode and write one shard after the other."""
    done, damaged, total = kept, 0, kept + sum(len(shard.clips) for shard in shards)
    encoder = _BatchEncoder(encoders, batch)
    stream = decoder.decode(clip for shard in shards for clip in shard.clips)
    for shard in shards:
        records = []
        for decoded in islice(stream, len(shard.clips)):
            records.append(decoded.record)
            if decoded.record.damage is None:
                encoder.add(decoded)
            else:
                damaged += 1
            done += 1
            progress("encoding", done, total, damaged)
        _write(root, shard, encoder.take(), tuple(records))


def _write(root: Path, shard: _Shard, embeddings: NDArray[np.float32], records: tuple[ClipRecord, ...]) -> None:
    """Write the array (2, n, T, D), then the index that makes it count."""
    array, index = (root / name for name in shard_names(shard.split, shard.number))
    data = _npy(embeddings)
    content = ShardIndex(split=shard.split, array_sha256=hashlib.sha256(data).hexdigest(), clips=records)
    atomic_write(array, data)
    atomic_write(index, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


class _BatchEncoder:
    """Gathers clips into batches of B and keeps their embeddings until they are taken."""

    def __init__(self, encoders: Encoders, batch: int) -> None:
        self._encoders = encoders
        self._frames = np.empty((batch, SEGMENTS, 3, FRAME_SIZE, FRAME_SIZE), np.float32)
        self._log_mels = np.empty((batch, SEGMENTS, 1, MEL_BINS, MEL_FRAMES), np.float32)
        self._count = 0
        self._parts: list[NDArray[np.float32]] = []

    def add(self, decoded: Decoded) -> None:
        """Copy a clip; encode when the batch is full."""
        self._frames[self._count], self._log_mels[self._count] = decoded.frames, decoded.log_mels
        self._count += 1
        if self._count == len(self._frames):
            self._encode()

    def take(self) -> NDArray[np.float32]:
        """Encode what is left; return (2, n, T, D), audio first, of all clips since the last call."""
        self._encode()
        empty = np.zeros((2, 0, SEGMENTS, self._encoders.embedding_size), np.float32)
        embeddings = np.concatenate([empty, *self._parts], axis=1)
        self._parts.clear()
        return embeddings

    def _encode(self) -> None:
        if not self._count:
            return
        backend = self._encoders.backend
        try:
            audio = backend.audio(self._log_mels[: self._count].reshape(-1, *self._log_mels.shape[2:]))
            vision = backend.vision(self._frames[: self._count].reshape(-1, *self._frames.shape[2:]))
        except (DeviceError, MemoryError, RuntimeError) as error:
            raise DeviceError(
                f"encoding {self._count} clips at once failed ({str(error).partition(chr(10))[0] or 'no memory'}). If "
                "memory ran out, run it again with a smaller --batch: it goes on where it was"
            ) from error
        part = np.stack([audio, vision]).reshape(2, self._count, SEGMENTS, self._encoders.embedding_size)
        _check_finite(part, self._encoders)
        self._parts.append(part)
        self._count = 0


def _check_finite(embeddings: NDArray[np.float32], encoders: Encoders) -> None:
    if not np.isfinite(embeddings).all():
        raise DeviceError(
            f"the encoders gave values that are no numbers in {encoders.precision}; use bf16 or fp32, and check that "
            "the weights are whole"
        )


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()
