"""Further passes of the training clips' sound in a feature cache, through an audio encoder with stochastic depth.

Shapes: N clips, n clips of a shard, P passes, T segments of a clip (10), D embedding size of audio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.untrusted import map_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SPLIT", "AudioPasses", "PassReader", "ShardPasses", "map_checked", "passes_name"]

SPLIT = "train"
"""The split that has passes: validation and test measure a head on clean embeddings."""


class AudioPasses(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many passes there are, and how they were made."""

    count: Annotated[int, Meta(ge=1, le=100)]
    """P."""
    drop_path: Annotated[float, Meta(ge=0, lt=1)]
    """Share of the residual branches that the last block leaves out; it grows linearly from 0 in the first."""

    def __str__(self) -> str:
        return f"{self.count} {'pass' if self.count == 1 else 'passes'} with stochastic depth {self.drop_path:g}"


class ShardPasses(NamedTuple):
    """Those clips of a reader that lie in one file."""

    read: Callable[[], NDArray[np.float32]]
    """Returns the (n, P, T, D) of the file; called once, when they are first needed."""
    clips: NDArray[np.intp]
    """Which of the N clips they are."""
    rows: NDArray[np.intp]
    """Their rows in the file."""


class PassReader:
    """The passes of N clips, at least one, read from their files as they are needed."""

    def __init__(self, count: int, shards: Sequence[ShardPasses]) -> None:
        """Read `count` (P) passes of the clips in `shards`."""
        self.count = count
        self._shards = list(shards)
        self._arrays: list[NDArray[np.float32]] = []

    def take(self, passes: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return (N, T, D), unit norm: of each clip the pass that `passes` (N,) names, counted from 0.

        Raises:
            DatasetError: a file is damaged.
        """
        self._arrays = self._arrays or [shard.read() for shard in self._shards]
        found = np.empty((len(passes), *self._arrays[0].shape[2:]), np.float32)
        for shard, array in zip(self._shards, self._arrays, strict=True):
            found[shard.clips] = array[shard.rows, passes[shard.clips]]
        return found


def passes_name(split: str, number: int) -> str:
    """Return the name of the file of a shard's passes; see `feature_cache.shard_names`."""
    return f"{split}-{number:05d}.passes.npy"


def map_checked(file: Path, sha256: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Memory-map a float32 array of a feature cache after checking its hash and shape.

    Raises:
        DatasetError: it cannot be read, or is not what was written.
    """
    again = f"delete it and {file.name.partition('.')[0]}.json, and run `ovavel train features` again"
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        array: NDArray[np.float32] = map_array(file)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {file} ({error}); {again}") from error
    if found != sha256 or array.shape != shape or array.dtype != np.float32:
        raise DatasetError(f"{file} was modified after it was written; {again}")
    return array
