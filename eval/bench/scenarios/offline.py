"""Offline: all windows are available at once; finds the batch size with the highest throughput."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np

from ovavel.eval.bench.meters.energy import EnergyMeter
from ovavel.eval.bench.pipeline import Decider, Pipeline
from ovavel.eval.bench.report import Batch, Offline
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.system.timing import Timings
from ovavel.runtime.types import Window

__all__ = ["OFFLINE_RULE", "run_offline"]

_GAIN = 1.02
_LEAST_CALLS = 3
_ENERGY_S = 1.0

OFFLINE_RULE = (
    f"batches of 1, 2, 4 … windows, each size for at least {_LEAST_CALLS} calls after one that does not count; the "
    "rate is that of the median call; it ends when two sizes in a row were no faster than the best before by 2 %"
)


def run_offline(
    pipeline: Pipeline, windows: Sequence[Window], *, least_s: float, largest: int, meter: EnergyMeter
) -> Offline:
    """Try batch sizes up to `largest`, each for at least `least_s`.

    Raises:
        OvavelError: the backend fails with a single window.
    """
    stream = itertools.cycle(windows)
    batches: list[Batch] = []
    ended = f"{largest} is the largest that was to be tried"
    size = 1
    while size <= largest:
        try:
            batches.append(_measure(pipeline, stream, size, least_s))
        except OvavelError as error:
            if not batches:
                raise
            ended = f"a batch of {size} failed: {error}"
            break
        rates = [batch.windows_per_s for batch in batches]
        if len(rates) > 2 and max(rates[-2:]) < _GAIN * max(rates[:-2]):
            ended = "two sizes in a row were no faster"
            break
        size *= 2
    best = max(batches, key=lambda batch: batch.windows_per_s)
    return Offline(best=best, batches=batches, ended=ended, energy_j=_energy_j(pipeline, stream, best, least_s, meter))


def _measure(pipeline: Pipeline, stream: itertools.cycle[Window], size: int, least_s: float) -> Batch:
    decider, timings = Decider(pipeline.backend, pipeline.bundle), Timings()
    durations: list[float] = []
    for call in itertools.count():
        batch = list(itertools.islice(stream, size))
        begin_s = time.perf_counter()
        for segment in pipeline.encoder.encode(batch):
            decider.decide(segment, timings)
        if call:
            durations.append(time.perf_counter() - begin_s)
        if len(durations) >= _LEAST_CALLS and sum(durations) >= least_s:
            return Batch(size=size, windows_per_s=size / float(np.median(durations)), calls=len(durations))
    raise AssertionError  # counting does not end


def _energy_j(
    pipeline: Pipeline, stream: itertools.cycle[Window], best: Batch, least_s: float, meter: EnergyMeter
) -> float | None:
    """Energy of a window in the best batch, over a stretch that the counters can resolve."""
    meter.begin()
    if meter.end_j() is None:
        return None
    meter.begin()
    measured = _measure(pipeline, stream, best.size, max(least_s, _ENERGY_S))
    spent = meter.end_j()
    return None if spent is None else spent / ((measured.calls + 1) * best.size)
