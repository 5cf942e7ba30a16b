"""The shards of a feature cache: which clips each holds, whether it is complete, and what is written of it.

A shard's bytes depend on its clips and the encoders alone, so whoever encodes it writes the same ones. Its index is
written last and completes it.

Shapes: n readable clips of a shard, T segments of a clip (10), D embedding size, P passes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from ovavel.eval.datasets.audio_passes import passes_name
from ovavel.eval.datasets.feature_cache import CACHE, TEXT, CacheInfo, ClipRecord, Damage, ShardIndex, shard_names
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.files import atomic_write
from ovavel.training.features.batches import BatchEncoder, Embeddings, check_finite
from ovavel.training.features.decode import Decoded, source_bytes, source_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip, Dataset
    from ovavel.training.features.encoders import Encoders

__all__ = ["CacheShard", "cut_shards", "encode_shard", "harmful_record", "shard_state", "write_header"]

_HARMFUL = "ended its process"
"""Kind of damage of a clip that ended whatever decoded or encoded it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShard:
    """Clips of one split that lie in one file."""

    split: str
    number: int
    clips: tuple[Clip, ...]

    @property
    def name(self) -> str:
        """Its own among all of the cache, such as "train-00000"."""
        return Path(self.index).stem

    @property
    def array(self) -> str:
        """File name of its embeddings."""
        return shard_names(self.split, self.number)[0]

    @property
    def index(self) -> str:
        """File name of its index."""
        return shard_names(self.split, self.number)[1]

    @property
    def passes(self) -> str:
        """File name of its passes, if it has any."""
        return passes_name(self.split, self.number)


def cut_shards(clips: Sequence[Clip], shard_clips: int) -> list[CacheShard]:
    """Cut each split into shards; the assignment of clips depends on the dataset alone."""
    shards = []
    for split in dict.fromkeys(clip.split for clip in clips):
        ours = [clip for clip in clips if clip.split == split]
        shards += [
            CacheShard(split=split, number=number, clips=tuple(ours[start : start + shard_clips]))
            for number, start in enumerate(range(0, len(ours), shard_clips))
        ]
    return shards


def write_header(root: Path, info: CacheInfo, encoders: Encoders, *, aside: Path | None = None) -> None:
    """Write the text embeddings and `cache.json`, unless they exist.

    Raises:
        DatasetError: there is another `cache.json`.
        OutputError: they cannot be written.
    """
    content = msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"
    if (root / CACHE).exists():
        if (root / CACHE).read_bytes() != content:
            raise DatasetError(f"{root / CACHE} does not match the name of its folder; delete it")
        return
    text = encoders.embed(info.names)
    for array in text.arrays.values():
        check_finite(array, encoders)
    atomic_write(root / TEXT, text.encode(), aside=aside)
    atomic_write(root / CACHE, content, aside=aside)


def shard_state(
    root: Path, info: CacheInfo, bench: Dataset, shard: CacheShard
) -> Literal["complete", "absent", "changed"]:
    """Whether the shard is in the cache; "changed" if its clips' files have changed since, or its index is damaged."""
    files = [shard.index, shard.array, *([shard.passes] if info.passes_of(shard.split) else [])]
    if not all((root / file).exists() for file in files):
        return "absent"
    try:
        records = msgspec.json.decode((root / shard.index).read_bytes(), type=ShardIndex).clips
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "changed"
    unchanged = len(records) == len(shard.clips) and all(map(_unchanged, records, shard.clips, [bench] * len(records)))
    return "complete" if unchanged else "changed"


def _unchanged(record: ClipRecord, clip: Clip, bench: Dataset) -> bool:
    """Return whether the clip's files are unchanged: by size, and for a damaged clip by content."""
    if record.name != clip.name or record.bytes != source_bytes(bench, clip):
        return False
    return record.damage is None or record.sha256 == source_record(bench, clip).sha256


def encode_shard(
    shard: CacheShard,
    decoded: Iterator[Decoded],
    encoder: BatchEncoder,
    report: Callable[[ClipRecord], None],
    *,
    harmful: Collection[ClipRecord] = (),
) -> dict[str, bytes]:
    """Encode a shard; return the content of its files by name, the index last.

    Args:
        shard: the shard.
        decoded: its clips in their order, without the `harmful` ones.
        encoder: encodes them in batches; it holds no clips of another shard.
        report: is called with the record of each clip.
        harmful: records of clips that are left out.

    Raises:
        DeviceError: memory ran out, the embeddings are not finite, or a decoding process was killed.
    """
    left_out = {record.name: record for record in harmful}
    records = []
    for clip in shard.clips:
        record = left_out.get(clip.name)
        if record is None:
            each = next(decoded)
            record = each.record
            if record.damage is None:
                encoder.add(each)
        records.append(record)
        report(record)
    return _render(shard, encoder.take(shard.split), tuple(records))


def _render(shard: CacheShard, embeddings: Embeddings, records: tuple[ClipRecord, ...]) -> dict[str, bytes]:
    """Return the content of a shard's files by name, in the order in which they must be written: the index last."""
    arrays = {shard.array: _npy(embeddings.clean)}
    if embeddings.passes is not None:
        arrays[shard.passes] = _npy(embeddings.passes)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in arrays.items()}
    index = ShardIndex(
        split=shard.split,
        array_sha256=hashes[shard.array],
        passes_sha256=hashes.get(shard.passes),
        clips=records,
    )
    return {**arrays, shard.index: msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"}


def harmful_record(bench: Dataset, shard: CacheShard, clip: Clip) -> ClipRecord:
    """The record of a clip that ended whatever decoded or encoded it."""
    message = (
        f"it ended the processes that decoded or encoded it: its decoder may be faulty, or memory ran out. "
        f"Delete {shard.index} in the cache to try it again"
    )
    return source_record(bench, clip, Damage(kind=_HARMFUL, message=message))


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()
