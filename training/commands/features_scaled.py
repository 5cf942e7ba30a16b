"""`ovavel train features` with --shard or --on: several processes and machines fill one cache."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.runtime.commands.scaled import Others, check_outcome, outcomes
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.scale.job import Shard
from ovavel.runtime.scale.places import prepare_aside
from ovavel.runtime.system.bars import rated_bar
from ovavel.training.commands.features_report import print_extraction
from ovavel.training.features.decode import select_clips
from ovavel.training.features.extract import Extraction
from ovavel.training.features.scaled import Encoded, FeatureJob, FeatureWorker, clips_at_work
from ovavel.training.features.shards import CacheShard, cut_shards

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.commands.scaled import ScaleOptions
    from ovavel.runtime.scale.work import Outcome

__all__ = ["run_scaled"]

_LOOK_EVERY_S = 1.0


def run_scaled(job: FeatureJob, splits: tuple[str, ...], options: ScaleOptions, console: Console) -> int:
    """Fill the cache, or one part of it; returns the exit code.

    Raises:
        OutputError: the cache cannot be written. Complete shards are kept.
        ClusterError, MissingExtraError: there is no cluster, or none of its machines can run the encoders.
        DeviceError: this machine cannot run the encoders, or machines fill different caches.
    """
    every = cut_shards(select_clips(job.bench, splits), job.shard_clips)
    mine = every
    if options.shard is not None:
        part = Shard.parse(options.shard)
        # In turn: they are few and of equal length, and the dataset alone says which there are.
        mine = every[part.index :: part.count]
        console.print(f"shard {options.shard}: {len(mine)} of {len(every)} files of the cache", markup=False)
    out = Path(job.out)
    prepare_aside(out)
    filled = _Filled(console)
    started_s = time.monotonic()
    with ExitStack() as stack:
        results, where = outcomes(FeatureWorker, job, mine, options, stack)
        bar = stack.enter_context(rated_bar("clips", console=console))
        others = Others(lambda: _clips(filled.complete(every)) + clips_at_work(out, every), _clips(every))

        def show() -> None:
            note = ", ".join(filter(None, (where(), others.note() if len(mine) < len(every) else "")))
            bar("encoding", filled.clips + clips_at_work(out, mine), _clips(mine), note)

        stack.enter_context(_repeated(show))
        for item in results:
            if item is not None:
                filled.add(*item)
    return filled.conclude(every, splits, time.monotonic() - started_s)


class _Filled:
    """What has become of the shards."""

    def __init__(self, console: Console) -> None:
        self.clips = 0
        """Clips of the shards that have an outcome."""
        self._console = console
        self._root: Path | None = None
        self._encoded = 0
        self._counts: Counter[str] = Counter()
        """Clips by the state of their shard, and shards that were "renewed"."""

    def add(self, shard: CacheShard, outcome: Outcome) -> None:
        """Count one.

        Raises:
            OutputError, DeviceError: the others would fare the same.
        """
        check_outcome(outcome)
        self.clips += len(shard.clips)
        self._counts[outcome.state] += len(shard.clips)
        if not isinstance(outcome, Encoded):
            self._console.print(f"ovavel: {shard.name}: {one_line(outcome.text)}", markup=False)
            return
        self._encoded += outcome.readable
        self._counts["renewed"] += outcome.renewed
        root = Path(outcome.cache)
        if self._root not in (None, root):
            raise DeviceError(
                f"processes fill different caches, {self._root} and {root}: give all machines the same weights and "
                "the same --device, delete one of the two, and run the command again"
            )
        self._root = root

    def complete(self, shards: Sequence[CacheShard]) -> list[CacheShard]:
        """Those of `shards` that are in the cache, as far as it is known which one it is."""
        root = self._root
        return [shard for shard in shards if (root / shard.index).exists()] if root else []

    def conclude(self, every: Sequence[CacheShard], splits: tuple[str, ...], seconds: float) -> int:
        """Print the sums; returns the exit code."""
        if self._root:
            extraction = Extraction(
                cache=FeatureCache.open(self._root),
                encoded=self._encoded,
                kept=self._counts["kept"],
                renewed=self._counts["renewed"],
                seconds=seconds,
            )
            print_extraction(extraction, splits, _clips(self.complete(every)))
        if bad := self._counts["failed"] + self._counts["unequal"]:
            self._console.print(f"ovavel: {bad} of {self.clips} clips are not in the cache", markup=False)
        return 1 if bad else 0


def _clips(shards: Sequence[CacheShard]) -> int:
    return sum(len(shard.clips) for shard in shards)


@contextlib.contextmanager
def _repeated(show: Callable[[], None]) -> Iterator[None]:
    """Call `show` now and then, whatever this thread waits for."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            show()

    thread = threading.Thread(target=repeat, name="ovavel-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
