"""Decoding of clips into encoder inputs, in separate processes that run a few clips ahead of the reader.

Each process decodes and prepares one clip at a time into a slot of shared memory, so no arrays are sent between
processes. Clips come out in the order in which they went in.

Shapes: T segments of a clip (10).
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.util import Finalize
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.system.parallel import begin_worker
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import BUFFER

# This module must not import numpy: a process limits its threads first.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip, Dataset
    from ovavel.eval.datasets.feature_cache import ClipRecord, Damage
    from ovavel.runtime.pipeline.preprocess import Preparation

    Slots: TypeAlias = NDArray[np.float32]

__all__ = [
    "Decoded",
    "Decoder",
    "DecoderKilledError",
    "damaged_note",
    "decode_only",
    "select_clips",
    "source_bytes",
    "source_record",
]

_PREPARED_BY = ("clip-frame", "kaldi-log-mel")
"""What prepares frames and sounds, by name: those of ImageBind."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Result of `decode_only`."""

    clips: int
    damaged: dict[tuple[str, str], Damage]
    """Split and name of each clip that could not be read → the reason."""
    segments_per_s: float
    """Measured from the first decoded clip on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One clip, ready for the encoders."""

    clip: Clip
    record: ClipRecord
    """Its source files, and the damage if it could not be read; then the arrays are invalid."""
    frames: NDArray[np.float32]
    """(T, 3, 224, 224) float32, valid until the next clip is requested."""
    log_mels: NDArray[np.float32]
    """(T, 1, 128, 204) float32, valid until the next clip is requested."""


class DecoderKilledError(DeviceError):
    """A process that decoded clips was killed."""


class Decoder:
    """Decoder of a dataset's clips in worker processes. Use it in a `with` block, which ends them."""

    def __init__(
        self, bench: Dataset, *, workers: int, ahead: int = 0, prepared_by: tuple[str, str] = _PREPARED_BY
    ) -> None:
        """Decode in `workers` processes; keep `ahead` clips ready in addition to those in progress.

        `prepared_by` names what prepares frames and sounds, in `ovavel.runtime.pipeline.preprocess.PREPARATIONS`.

        Raises:
            ValueError: `workers` is below 1.
        """
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._slots = 2 * workers + ahead
        spawn = multiprocessing.get_context("spawn")  # a fork would copy locks held by the encoder's threads
        sizes = (BUFFER * math.prod(each.shape) for each in _preparations(prepared_by))
        frames, log_mels = (spawn.RawArray("f", self._slots * size) for size in sizes)
        self._frames, self._log_mels = _arrays(frames, log_mels, prepared_by)
        self._pool = ProcessPoolExecutor(
            workers, mp_context=spawn, initializer=_start, initargs=(pickle.dumps(bench), frames, log_mels, prepared_by)
        )
        # A process that multiprocessing started waits at its end for those that it started, and they for clips. So they
        # are ended before that, and before the queue that says so is closed (priority 10).
        Finalize(self, self._pool.shutdown, exitpriority=100)

    def __enter__(self) -> Self:
        """Return this decoder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes after their current clips."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def decode(self, clips: Iterable[Clip]) -> Iterator[Decoded]:
        """Yield all `clips`, in order, including damaged ones.

        Raises:
            DecoderKilledError: a process was killed, for instance because memory ran out.
        """
        waiting: deque[tuple[int, Clip, Future[ClipRecord]]] = deque()
        rest = enumerate(clips)
        try:
            for index, clip in islice(rest, self._slots):
                waiting.append((index, clip, self._pool.submit(_decode, index, clip)))
            while waiting:
                slot, clip, future = waiting.popleft()
                record = future.result()
                yield Decoded(clip=clip, record=record, frames=self._frames[slot], log_mels=self._log_mels[slot])
                for _, following in islice(rest, 1):
                    waiting.append((slot, following, self._pool.submit(_decode, slot, following)))
        except BrokenProcessPool as error:
            raise DecoderKilledError(
                "a decoding process was killed, possibly because memory ran out; run the command again with fewer "
                "--workers, or, if a clip ends whatever decodes it, with --shard 1/1, which leaves it out"
            ) from error


def select_clips(bench: Dataset, splits: Sequence[str]) -> tuple[Clip, ...]:
    """Return all clips of `splits`, in the order of the dataset.

    Raises:
        UsageError: the dataset has no such split.
    """
    has = {clip.split for clip in bench.clips}
    unknown = sorted(set(splits) - has)
    if unknown or not splits:
        raise UsageError(
            f"the dataset has the splits {', '.join(sorted(has)) or 'none'}; not {', '.join(unknown) or 'none at all'}"
        )
    return tuple(clip for clip in bench.clips if clip.split in splits)


def damaged_note(clips: int) -> str:
    """Return the note of a progress on how many clips were damaged; empty for none."""
    return f"{clips} damaged" if clips else ""


def decode_only(
    bench: Dataset, clips: Sequence[Clip], *, workers: int, ahead: int = 8, progress: Progress = no_progress
) -> DryRun:
    """Decode and prepare `clips` without encoding them, and measure the speed.

    Raises:
        UsageError, DeviceError: as `Decoder`.
    """
    damaged: dict[tuple[str, str], Damage] = {}
    first_s = time.monotonic()
    with Decoder(bench, workers=workers, ahead=ahead) as decoder:
        for done, decoded in enumerate(decoder.decode(clips), 1):
            if done == 1:
                first_s = time.monotonic()
            if decoded.record.damage:
                damaged[decoded.clip.split, decoded.clip.name] = decoded.record.damage
            progress("decoding", done, len(clips), damaged_note(len(damaged)))
    elapsed_s = max(time.monotonic() - first_s, 1e-9)
    return DryRun(clips=len(clips), damaged=damaged, segments_per_s=BUFFER * max(0, len(clips) - 1) / elapsed_s)


def source_bytes(bench: Dataset, clip: Clip) -> int:
    """Return the total size of the clip's files."""
    return sum(file.stat().st_size for file in bench.files(clip))


def source_record(bench: Dataset, clip: Clip, damage: Damage | None = None) -> ClipRecord:
    """Read the clip's files and return their size and a hash over names and contents, with `damage`."""
    from ovavel.eval.datasets.feature_cache import ClipRecord

    digest, total = hashlib.sha256(), 0
    for file in bench.files(clip):
        try:
            content = file.read_bytes()
        except OSError as error:  # the clip is damaged, and `damage` gives the reason
            content = f"unreadable: {error.errno}".encode()
        total += file.stat().st_size
        digest.update(f"{file.name}\0{len(content)}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return ClipRecord(name=clip.name, bytes=total, sha256=digest.hexdigest(), damage=damage)


class _Worker(NamedTuple):
    bench: Dataset
    frames: NDArray[np.float32]
    log_mels: NDArray[np.float32]
    of_frames: Preparation
    of_sounds: Preparation


_worker: _Worker | None = None
"""Set once in each process."""


def _start(bench: bytes, frames: Any, log_mels: Any, prepared_by: tuple[str, str]) -> None:
    """Prepare this process; `bench` is pickled, because unpickling it imports numpy."""
    global _worker
    begin_worker()
    for name in _THREADS:  # there is a process per core already
        os.environ[name] = "1"
    arrays = _arrays(frames, log_mels, prepared_by)
    _worker = _Worker(pickle.loads(bench), *arrays, *_preparations(prepared_by))  # noqa: S301 - from our own parent


def _decode(slot: int, clip: Clip) -> ClipRecord:
    """Decode a clip into its slot; runs in a worker process."""
    from ovavel.eval.datasets.clip_media import DamagedClip
    from ovavel.eval.datasets.feature_cache import Damage

    assert _worker
    damage = None
    try:
        for index, window in enumerate(_worker.bench.windows(clip, _worker.of_sounds.rate_hz)):
            assert window.frame is not None
            assert window.waveform is not None
            _worker.frames[slot, index] = _worker.of_frames.prepare(window.frame)
            _worker.log_mels[slot, index] = _worker.of_sounds.prepare(window.waveform)
    except DamagedClip as error:
        damage = Damage(kind=error.kind, message=str(error))
    except UsageError as error:  # readable, but not valid encoder input
        damage = Damage(kind="unusable contents", message=str(error))
    return source_record(_worker.bench, clip, damage)


def _arrays(frames: Any, log_mels: Any, prepared_by: tuple[str, str]) -> tuple[Slots, Slots]:
    """(slots, T, …) views of the shared memory."""
    import numpy as np

    of_frames, of_sounds = _preparations(prepared_by)
    return (
        np.frombuffer(frames, np.float32).reshape(-1, BUFFER, *of_frames.shape),
        np.frombuffer(log_mels, np.float32).reshape(-1, BUFFER, *of_sounds.shape),
    )


def _preparations(names: tuple[str, str]) -> tuple[Preparation, Preparation]:
    """What prepares frames and sounds."""
    from ovavel.runtime.pipeline.preprocess import PREPARATIONS

    return PREPARATIONS[names[0]], PREPARATIONS[names[1]]
