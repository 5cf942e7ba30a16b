"""Embeddings of a dataset's clips, made once by `ovavel train features` and read by all that trains or measures a head.

A cache is a folder named by its fingerprint, which covers everything that the embeddings depend on::

    <fingerprint>/
      cache.json               what made it: `CacheInfo`
      text.npz                 text embeddings of the dataset's names
      train-00000.npy          embeddings of the first clips of the split, those that could be read
      train-00000.passes.npy   only with `CacheInfo.passes`, of training clips: their sound with stochastic depth
      train-00000.json         which clips these are, and why the others are missing: `ShardIndex`; written last
      …

Shapes: N clips, T segments of a clip (10), D embedding size of a sense, C classes with the background last, P passes. A
shard's array is (n, T, D of audio + D of vision) float32, with one row for each clip that could be read, in the order
of the dataset; its passes are (n, P, T, D of audio) float32, of the same clips.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from ovavel.eval.datasets.audio_passes import SPLIT, AudioPasses, PassReader, ShardPasses, map_checked, passes_name
from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.paths import check_path
from ovavel.runtime.system.untrusted import read_json
from ovavel.runtime.types import BUFFER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip

__all__ = [
    "CACHE",
    "FORMAT_VERSION",
    "SEGMENTS",
    "TEXT",
    "CacheInfo",
    "ClipRecord",
    "Damage",
    "FeatureCache",
    "Features",
    "ShardIndex",
    "shard_names",
]

CACHE = "cache.json"
TEXT = "text.npz"
FORMAT_VERSION = 1
"""Raised whenever files, or the way from media to the encoders' inputs, change: older caches are not resumed."""
SEGMENTS = BUFFER
"""T."""

_AGAIN = "run `ovavel train features` again"
_NAMED = 3  # how many clips an error names before it only counts

_Content = TypeVar("_Content", bound=Struct)
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class CacheInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the embeddings of a cache depend on. A different value means a different cache."""

    format_version: int = FORMAT_VERSION
    model: str
    """Name of the encoders, e.g. "imagebind_huge"."""
    weights_sha256: Sha256
    """Hash of the checkpoint the encoders came from."""
    graphs_sha256: Sha256 | None
    """Hash over the bundle's encoder graphs; None where the checkpoint itself ran."""
    tokenizer_sha256: Sha256
    backend: str
    """What ran the encoders, e.g. "torch"."""
    device: str
    """Kind of device: "cpu" or "cuda"."""
    precision: str
    """In which vision and audio were computed: "fp32", "bf16", "fp16", "int8", or "vision …, audio …"."""
    encoders: Encoders
    """Sizes of the embeddings, and how seconds were prepared."""
    dataset_fingerprint: str
    """`Dataset.fingerprint`."""
    shard_clips: Annotated[int, Meta(ge=1)]
    """How many clips of the dataset belong to one shard."""
    names: tuple[str, ...]
    """The C names of `FeatureCache.text`, background last."""
    clips: dict[str, int]
    """How many clips each split of the dataset has."""
    passes: AudioPasses | UnsetType = UNSET
    """Further passes of the training clips' sound; left out of the file and the fingerprint where there are none."""

    def passes_of(self, split: str) -> AudioPasses | None:
        """Return which further passes the clips of `split` have."""
        return self.passes if split == SPLIT and isinstance(self.passes, AudioPasses) else None

    @property
    def fingerprint(self) -> str:
        """Hash of all fields; its first 16 digits name the folder."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Damage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a clip has no embeddings."""

    kind: str
    """A short fixed phrase; tables count by it."""
    message: str


class ClipRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One clip of a shard and the files it was read from."""

    name: str
    bytes: int
    """Size of its files, together."""
    sha256: Sha256
    """Hash over the names and contents of its files."""
    damage: Damage | None = None
    """None where it could be read, and so has a row in the array."""


class ShardIndex(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a shard holds. It is written after the array: a shard without it does not count."""

    split: str
    array_sha256: Sha256
    """Hash of the `.npy` file."""
    passes_sha256: Sha256 | None = None
    """Hash of the file of passes; None where there is none."""
    clips: tuple[ClipRecord, ...]


class Features(NamedTuple):
    """Embeddings of the requested clips that could be read."""

    clips: tuple[Clip, ...]
    """N clips, in the order they were asked for."""
    audio: NDArray[np.float32]
    """(N, T, D), unit norm."""
    vision: NDArray[np.float32]
    """(N, T, D), unit norm."""
    damaged: tuple[Clip, ...]
    """Asked for, but they could not be read when the cache was made; every table that leaves them out must say so."""


def shard_names(split: str, number: int) -> tuple[str, str]:
    """File names of the array and of the index of a split's shard, counted from 0."""
    return f"{split}-{number:05d}.npy", f"{split}-{number:05d}.json"


class _Place(NamedTuple):
    array: str
    """File name of the shard's array."""
    row: int


class _Array(NamedTuple):
    sha256: str
    passes_sha256: str | None
    rows: int
    passes: str
    """File name of its passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """A feature cache, whole or still growing. `FeatureCache.open` makes one."""

    path: Path
    """The folder whose name is the fingerprint."""
    info: CacheInfo
    text: TextEmbeddings
    """(C, D) float32 for each sense, unit norm, read-only: the embeddings of `names`."""
    damaged: Mapping[tuple[str, str], Damage]
    """Split and name of each clip that could not be read → why."""
    _places: Mapping[tuple[str, str], _Place]
    _arrays: Mapping[str, _Array]

    @property
    def names(self) -> tuple[str, ...]:
        """The dataset's total label space, background last."""
        return self.info.names

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read the index of the cache in the folder `path`, or in the only folder of `path` that holds one.

        Raises:
            DatasetError: there is none or more than one, or it is damaged or of another version.
        """
        check_path(path, DatasetError)
        root = _find(Path(path))
        info = _read(root / CACHE, CacheInfo)
        if info.format_version != FORMAT_VERSION:
            raise DatasetError(
                f"the feature cache {root} has format version {info.format_version} and this ovavel reads "
                f"{FORMAT_VERSION}; {_AGAIN}, which makes a new one"
            )
        places: dict[tuple[str, str], _Place] = {}
        damaged: dict[tuple[str, str], Damage] = {}
        arrays: dict[str, _Array] = {}
        # What is there is looked at, not what the counts claim: they may be anything.
        for file in sorted(root.glob("*-*.json")):
            split, _, digits = file.stem.rpartition("-")
            number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else -1
            array, index = shard_names(split, number)
            if file.name == index and 0 <= number * info.shard_clips < info.clips.get(split, 0):
                shard = _read(file, ShardIndex)
                row = 0
                for record in shard.clips:
                    if record.damage:
                        damaged[shard.split, record.name] = record.damage
                    else:
                        places[shard.split, record.name] = _Place(array, row)
                        row += 1
                arrays[array] = _Array(shard.array_sha256, shard.passes_sha256, row, passes_name(split, number))
        text = _read_text(root / TEXT, info)
        return cls(path=root, info=info, text=text, damaged=damaged, _places=places, _arrays=arrays)

    def load(self, clips: Sequence[Clip]) -> Features:
        """Return the embeddings of `clips`, in their order.

        The shards are memory-mapped, so that nothing but the result takes memory; each is checked against its hash.

        Raises:
            DatasetError: a clip is neither in the cache nor among its damaged ones, or a shard is damaged.
        """
        keys = [(clip.split, clip.name) for clip in clips]
        missing = [key for key in keys if key not in self._places and key not in self.damaged]
        if missing:
            named = ", ".join(f"{split}/{name}" for split, name in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            splits = " ".join(sorted({split for split, _ in missing}))
            raise DatasetError(
                f"the feature cache {self.path} lacks {len(missing)} of {len(keys)} clips ({named}{more}); "
                f"{_AGAIN} with --splits {splits}"
            )
        present = [clip for clip, key in zip(clips, keys, strict=True) if key in self._places]
        sizes = self.info.encoders.sizes
        audio, vision = (np.empty((len(present), SEGMENTS, size), np.float32) for size in sizes)
        for name, (indices, rows) in self._by_array(present).items():
            file, wanted = self.path / name, self._arrays[name]
            array = map_checked(file, wanted.sha256, (wanted.rows, SEGMENTS, sum(sizes)))
            audio[indices], vision[indices] = array[rows, :, : sizes[0]], array[rows, :, sizes[0] :]
        damaged = tuple(clip for clip, key in zip(clips, keys, strict=True) if key in self.damaged)
        return Features(clips=tuple(present), audio=audio, vision=vision, damaged=damaged)

    def audio_passes(self, clips: Sequence[Clip]) -> PassReader | None:
        """Return the passes of `clips`, which must be among those that `load` returns; None where there are none.

        Nothing is read yet: a file is checked against its hash and memory-mapped when the reader needs it.

        Raises:
            DatasetError: there should be passes, and a shard has none.
        """
        made = {self.info.passes_of(clip.split) for clip in clips}
        passes = made.pop() if len(made) == 1 else None
        if passes is None:
            return None
        shards = []
        for name, (indices, rows) in self._by_array(clips).items():
            found = self._arrays[name]
            if found.passes_sha256 is None:
                index = Path(name).with_suffix(".json")
                raise DatasetError(f"{self.path / index} lists no passes; delete it, and {_AGAIN}")
            shape = (found.rows, passes.count, SEGMENTS, self.info.encoders.sizes[0])
            read = partial(map_checked, self.path / found.passes, found.passes_sha256, shape)
            shards.append(ShardPasses(read, indices, rows))
        return PassReader(passes.count, shards)

    def _by_array(self, clips: Sequence[Clip]) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return the name of each array that holds some of `clips` → which of them, and their rows."""
        wanted: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, clip in enumerate(clips):
            place = self._places[clip.split, clip.name]
            wanted[place.array].append((index, place.row))
        columns = {name: np.array(pairs, np.intp).T for name, pairs in wanted.items()}
        return {name: (indices, rows) for name, (indices, rows) in columns.items()}


def _find(path: Path) -> Path:
    if (path / CACHE).is_file():
        return path
    found = sorted(file.parent for file in path.glob(f"*/{CACHE}"))
    if len(found) == 1:
        return found[0]
    if found:
        listing = "; ".join(f"{each.name} ({_describe(_read(each / CACHE, CacheInfo))})" for each in found)
        raise DatasetError(f"{path} holds {len(found)} feature caches, give the folder of one of them: {listing}")
    what = "holds no feature cache" if path.is_dir() else "is a file" if path.exists() else "does not exist"
    raise DatasetError(f"{path} {what}; `ovavel train features` makes one")


def _describe(info: CacheInfo) -> str:
    clips = sum(info.clips.values())
    passes = f", {info.passes}" if info.passes else ""
    return f"{info.model} by {info.backend} in {info.precision} on {info.device}, a dataset of {clips} clips{passes}"


def _read(file: Path, kind: type[_Content]) -> _Content:
    try:
        return read_json(file.read_bytes(), kind)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {file} ({error}); delete it, and {_AGAIN}") from error


def _read_text(file: Path, info: CacheInfo) -> TextEmbeddings:
    try:
        text = TextEmbeddings.decode(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {file} ({error}); delete {CACHE} beside it, and {_AGAIN}") from error
    if len(text) != len(info.names) or text.sizes != info.encoders.sizes:
        raise DatasetError(f"{file} does not fit {CACHE} beside it; delete both, and {_AGAIN}")
    return text.normal()
