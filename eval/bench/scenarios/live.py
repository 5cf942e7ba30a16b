"""Live: how many cameras can each send a window per second with nearly all decisions on time.

The load is open: a camera does not wait for its last window to be decided. What waits is encoded in batches, by the
same Encoder, and each camera has a Localizer and an EventTracker of its own, as sessions have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import default_rng

from ovavel.eval.bench.pipeline import Decider, Pipeline
from ovavel.eval.bench.report import Live, Spread, Trial
from ovavel.runtime.system.timing import Timings
from ovavel.runtime.types import WINDOW_S, Window

__all__ = ["LIVE_RULE", "largest_passing", "live_report", "run_live", "run_trial"]

_SHARE_MISSED = 0.01
_STEP = 1.25
_RESOLUTION = 0.02
_SPIN_S = 5e-4

LIVE_RULE = (
    "N cameras send a window a second each, at moments within the second that are random but the same in every run; a "
    "trial passes if 99 % of the windows are decided before the deadline, counted from their arrival, and if in its "
    "second half there was a moment when nothing waited; one that fails is done once more. N goes up or down by a "
    "quarter from what offline or single stream promises, and is then halved in to 2 %"
)


def run_live(
    pipeline: Pipeline,
    windows: Sequence[Window],
    *,
    guess: float,
    deadline_ms: float,
    trial_s: float,
    most: int,
    trials: list[Trial],
) -> Live:
    """Search for the largest number of cameras, up to `most`; every trial is put into `trials` as it ends."""
    batch = pipeline.backend.info.batch

    def passes(cameras: int) -> bool:
        for _ in range(2):
            trials.append(run_trial(pipeline, windows, cameras, deadline_ms=deadline_ms, trial_s=trial_s, batch=batch))
            if trials[-1].passed:
                return True
        return False

    for size in range(1, batch + 1):  # first-run costs of each batch size
        pipeline.encoder.encode([windows[i % len(windows)] for i in range(size)])
    cameras = largest_passing(passes, guess=round(guess), most=most)
    return live_report(
        trials, cameras=cameras, at_most=cameras == most, deadline_ms=deadline_ms, trial_s=trial_s, batch=batch
    )


def live_report(
    trials: Sequence[Trial], *, cameras: int, at_most: bool, deadline_ms: float, trial_s: float, batch: int
) -> Live:
    """Summarize a search."""
    return Live(
        cameras=cameras,
        at_most=at_most,
        deadline_ms=deadline_ms,
        trial_s=trial_s,
        batch=batch,
        trials=list(trials),
    )


def largest_passing(passes: Callable[[int], bool], *, guess: int, most: int) -> int:
    """Find the largest number up to `most` that passes, to 2 %, supposing that all below it do; 0 if 1 fails."""
    low, high = 0, most + 1
    number = min(max(guess, 1), most)
    while low < number < high:  # by steps, until one passes and one fails
        if passes(number):
            low = number
            if high <= most:
                break
            number = min(max(number + 1, int(number * _STEP)), most)
        else:
            high = number
            if low > 0:
                break
            number = int(number / _STEP)
    while high - low > max(1, int(low * _RESOLUTION)) and low < most:
        middle = (low + high) // 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def run_trial(
    pipeline: Pipeline,
    windows: Sequence[Window],
    cameras: int,
    *,
    deadline_ms: float,
    trial_s: float,
    batch: int,
) -> Trial:
    """Let `cameras` cameras send windows for `trial_s`; end as soon as too many were late."""
    each = max(1, round(trial_s / WINDOW_S))
    phases = default_rng(0).random(cameras)  # those of few cameras are the first of those of many
    arrivals = (phases + np.arange(each)[:, None]).ravel() * WINDOW_S  # seconds since the start, camera by camera
    order = np.argsort(arrivals, kind="stable")
    arrivals_in_order = arrivals[order]
    deciders = [Decider(pipeline.backend, pipeline.bundle) for _ in range(cameras)]
    timings = Timings(keep=1)
    allowed = int(_SHARE_MISSED * len(order))
    latencies: list[float] = []
    missed, caught_up, largest, taken = 0, False, 0, 0
    begin_s = time.perf_counter()
    while taken < len(order) and missed <= allowed:
        now_s = time.perf_counter() - begin_s
        waiting = int(np.searchsorted(arrivals_in_order, now_s, side="right")) - taken
        if waiting <= 0:
            caught_up |= now_s > each * WINDOW_S / 2
            wait_s = float(arrivals_in_order[taken]) - now_s
            if wait_s > _SPIN_S:
                time.sleep(wait_s - _SPIN_S)
            continue
        now = order[taken : taken + min(waiting, batch)]
        taken += len(now)
        largest = max(largest, len(now))
        segments = pipeline.encoder.encode([windows[int(i) % len(windows)] for i in now])
        for i, segment in zip(now, segments, strict=True):
            deciders[int(i) % cameras].decide(segment, timings)
            latency_ms = (time.perf_counter() - begin_s - float(arrivals[i])) * 1e3
            latencies.append(latency_ms)
            missed += latency_ms > deadline_ms
    return Trial(
        cameras=cameras,
        windows=len(latencies),
        latency_ms=Spread.of(latencies),
        missed=missed,
        caught_up=caught_up,
        largest_batch=largest,
        passed=missed <= allowed and taken == len(order) and caught_up,
    )
