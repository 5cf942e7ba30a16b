"""Filling of a feature cache by several processes and machines: each encodes shards that no other one has finished.

A clip that ends whatever works on its shard is found by trial, in a process of its own, and the shard is encoded
without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.datasets.feature_cache import CacheInfo, ClipRecord
from ovavel.runtime.errors import DatasetError, OutputError, OvavelError
from ovavel.runtime.pipeline.preprocess import preparations
from ovavel.runtime.scale.job import device_on_slot, gpus_for
from ovavel.runtime.scale.places import ASIDE
from ovavel.runtime.scale.work import Outcome
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.hardware import physical_cores
from ovavel.runtime.system.parallel import Crashed, run_each
from ovavel.training.features.batches import BatchEncoder, default_batch
from ovavel.training.features.decode import Decoder, DecoderKilledError
from ovavel.training.features.encoders import Encoders, EncoderSource
from ovavel.training.features.extract import SHARD_CLIPS, cache_info, locked
from ovavel.training.features.shards import CacheShard, encode_shard, harmful_record, shard_state, write_header

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Clip, Dataset

__all__ = ["Encoded", "FeatureJob", "FeatureWorker", "clips_at_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureJob:
    """What to do with each shard."""

    bench: Dataset
    """The dataset, at an absolute path."""
    out: str
    """Folder of caches, absolute."""
    source: EncoderSource
    batch: int | None = None
    """Clips encoded at once; None: by the device."""
    workers: int | None = None
    """Decoding processes of each worker; None: by its threads and its device."""
    shard_clips: int = SHARD_CLIPS

    @property
    def threads(self) -> int | None:
        """Threads of the encoders, if their number was given."""
        return self.source.threads

    @property
    def gpus(self) -> bool | None:
        """Whether the encoders need a GPU; None: they take one if there is one."""
        return gpus_for(self.source.device, self.source.backend if self.source.bundle else "torch")

    def on_slot(self, threads: int, *, gpu: bool) -> FeatureJob:
        """The same on a slot of so many cores."""
        source = replace(self.source, threads=threads, device=device_on_slot(self.source.device, gpu=gpu))
        return replace(self, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded(Outcome):
    """A shard that is in the cache, now or before."""

    cache: str
    """Folder of the cache."""
    readable: int = 0
    """Clips that were encoded now."""
    renewed: bool = False
    """Whether it was there before, of other files."""


class FeatureWorker:
    """Encodes shards of one job. The encoders are opened with the first."""

    def __init__(self, job: FeatureJob) -> None:
        self._job = job
        self._aside = Path(job.out) / ASIDE
        self._opened: _Opened | None = None

    def process(self, shard: CacheShard) -> Outcome:
        """Encode the shard unless it is in the cache. Raises nothing."""
        try:
            return self._process(shard, ())
        except DecoderKilledError:
            return self.give_up(shard, 1)

    def give_up(self, shard: CacheShard, killed: int) -> Outcome:
        """Find out which clips end a process, and encode the shard without them. Raises nothing.

        Both happen in processes of their own: this one must not end.
        """
        self.close()  # memory for the other one
        trials = run_each(partial(_ends_its_process, self._job), shard.clips, workers=1)
        harmful = {clip.name for clip, result in trials if isinstance(result, Crashed) or result}
        ((_, outcome),) = run_each(partial(_encode_without, self._job, harmful), [shard], workers=1)
        if isinstance(outcome, Crashed):
            text = f"it ended {killed} processes, and another one without the clips that do so alone: {_MEMORY}"
            return Outcome(state="failed", text=text)
        return outcome

    def encode_without(self, shard: CacheShard, harmful: Collection[str]) -> Outcome:
        """Encode the shard without the clips of these names, which are recorded as damaged. Raises nothing."""
        records = [harmful_record(self._job.bench, shard, clip) for clip in shard.clips if clip.name in harmful]
        try:
            return self._process(shard, records)
        except DecoderKilledError as error:
            return Outcome(state="failed", text=str(error))

    def try_alone(self, clip: Clip) -> None:
        """Decode and encode a clip, and keep nothing.

        Raises:
            OvavelError: this is impossible; DecoderKilledError where it ended the process that decodes.
        """
        opened = self._open()
        encoder = BatchEncoder(opened.encoders, 1)
        for decoded in opened.decoder.decode([clip]):
            if decoded.record.damage is None:
                encoder.add(decoded)

    def close(self) -> None:
        """End the decoding processes and free the encoders' memory; the next shard opens them again."""
        if self._opened:
            self._opened.stack.close()
            self._opened = None

    def _process(self, shard: CacheShard, harmful: Collection[ClipRecord]) -> Outcome:
        """Encode a shard unless it is in the cache. Raises DecoderKilledError."""
        try:
            opened = self._open()
            self._job.bench.check_media()
        except OutputError as error:
            return Outcome(state="unwritable", text=str(error))
        except OvavelError as error:
            return Outcome(state="unusable", text=str(error))
        count = self._aside / f"{shard.name}.clips"
        try:
            return self._encode(shard, harmful, opened, count)
        except Exception as error:  # one shard among many must not end the others
            self.close()  # what is half-decoded or half-encoded must not get into the next one
            if isinstance(error, DecoderKilledError):
                raise
            if isinstance(error, DatasetError):
                return Outcome(state="unusable", text=str(error))
            text = str(error) if isinstance(error, OvavelError) else f"{type(error).__name__}: {error}"
            if isinstance(error, OSError):  # writing raises OutputError
                text = f"cannot read {error.filename or 'a file'}: {error.strerror or error}; check it"
            return Outcome(state="unwritable" if isinstance(error, OutputError) else "failed", text=text)
        finally:
            with contextlib.suppress(OSError):
                count.unlink(missing_ok=True)

    def _encode(self, shard: CacheShard, harmful: Collection[ClipRecord], opened: _Opened, count: Path) -> Outcome:
        root, bench = opened.root, self._job.bench
        state = shard_state(root, opened.info, bench, shard)
        if state == "complete":
            return Encoded(state="kept", cache=str(root))
        if state == "changed":
            # Before the array: an index must never belong to another array.
            try:
                (root / shard.index).unlink(missing_ok=True)
            except OSError as error:
                raise output_error(root / shard.index, error) from error
        records: list[ClipRecord] = []

        def report(record: ClipRecord) -> None:
            records.append(record)
            with contextlib.suppress(OSError):  # it is for a bar alone
                count.write_text(str(len(records)))

        names = {record.name for record in harmful}
        decoded = opened.decoder.decode(clip for clip in shard.clips if clip.name not in names)
        files = encode_shard(shard, decoded, opened.encoder, report, harmful=harmful)
        bench.check_media()  # if the data set has gone meanwhile, its clips are not damaged
        if shard_state(root, opened.info, bench, shard) == "complete":  # another process has been faster
            if (root / shard.index).read_bytes() != files[shard.index]:
                text = f"it differs from what another process wrote at the same time, {root / shard.index}; {_UNEQUAL}"
                return Outcome(state="unequal", text=text)
        else:
            for name, data in files.items():
                atomic_write(root / name, data, aside=self._aside)
        readable = sum(record.damage is None for record in records)
        return Encoded(state="done", cache=str(root), readable=readable, renewed=state == "changed")

    def _open(self) -> _Opened:
        """Open the encoders and the cache, and start the decoding processes."""
        if self._opened is None:
            job = self._job
            with ExitStack() as stack:
                encoders = job.source.open()
                stack.callback(encoders.close)
                info = cache_info(job.bench, encoders, shard_clips=job.shard_clips)
                root = Path(job.out) / info.fingerprint[:16]
                try:
                    root.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked(root, shared=True))
                    write_header(root, info, encoders, aside=self._aside)
                except OSError as error:
                    raise output_error(root, error) from error
                batch = job.batch or default_batch(encoders)
                cores = job.threads or physical_cores()
                found = preparations(encoders.backend.encoders)
                decoder = Decoder(
                    job.bench,
                    workers=job.workers or (max(1, cores // 2) if encoders.device == "cpu" else cores),
                    ahead=batch,
                    prepared_by=(found["vision"].name, found["audio"].name),
                )
                stack.enter_context(decoder)
                self._opened = _Opened(
                    encoders=encoders,
                    encoder=BatchEncoder(encoders, batch),
                    decoder=decoder,
                    info=info,
                    root=root,
                    stack=stack.pop_all(),
                )
        return self._opened


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    encoders: Encoders
    encoder: BatchEncoder
    decoder: Decoder
    info: CacheInfo
    root: Path
    stack: ExitStack
    """Closes all of them."""


_MEMORY = "memory may have run out; run the command again with a smaller --batch or fewer --workers"
_UNEQUAL = "use the same libraries and the same --threads on all machines, delete that file, and run the command again"
_TRIES = 2
"""How often a clip may end the process that decodes it; `run_each` tries one that ends its own process as often."""

_trial: FeatureWorker | None = None
"""Of a process that tries clips."""


def _ends_its_process(job: FeatureJob, clip: Clip) -> bool:
    """Whether decoding the clip ends the process that decodes; if encoding it does, this process ends."""
    global _trial
    _trial = _trial or FeatureWorker(replace(job, batch=1, workers=1))
    for _ in range(_TRIES):
        try:
            _trial.try_alone(clip)
        except DecoderKilledError:
            _trial.close()
        except OvavelError:  # the shard will say so
            return False
        else:
            return False
    return True


def _encode_without(job: FeatureJob, harmful: Collection[str], shard: CacheShard) -> Outcome:
    return FeatureWorker(job).encode_without(shard, harmful)


def clips_at_work(out: Path, shards: Iterable[CacheShard]) -> int:
    """How many clips of `shards` are encoded in shards that are not complete yet, by any process."""
    done = 0
    for shard in shards:
        with contextlib.suppress(OSError, ValueError):  # it is not being encoded, or is just being written
            done += min(int((out / ASIDE / f"{shard.name}.clips").read_text()), len(shard.clips))
    return done
