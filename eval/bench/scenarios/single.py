"""Single stream: one window after the other, the rows in turns, so that a busy moment affects all of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np

from ovavel.eval.bench.meters.yardstick import Yardstick
from ovavel.eval.bench.pipeline import Pipeline
from ovavel.eval.bench.report import STAGES, Ratio, Single, Spread
from ovavel.runtime.system.progress import Progress
from ovavel.runtime.types import Window

__all__ = ["SINGLE_RULE", "ratios", "run_single", "single_report"]

_REST_S = 0.05  # the threads of one backend come to rest before the other is timed
_COMPARED = ("vision", "audio", "window")

SINGLE_RULE = (
    "the next window starts when the one before is decided; several rows take turns window by window, with a rest of "
    f"{_REST_S * 1e3:.0f} ms and in changing order; ratios are of the pairs, percentiles by the nearest rank"
)


def run_single(
    pipelines: Sequence[Pipeline],
    windows: Sequence[Sequence[Window]],
    count: int,
    *,
    yardstick: Yardstick | None,
    progress: Progress,
) -> None:
    """Run `count` windows through each pipeline, each with its own `windows`; the order changes with each window."""
    turns = list(zip(pipelines, windows, strict=True))
    for i in range(count):
        progress("single stream", i, count)
        for pipeline, own in turns if i % 2 == 0 else reversed(turns):
            if len(pipelines) > 1:
                time.sleep(_REST_S)
            pipeline.run(own[i % len(own)], yardstick)


def stage_durations(pipeline: Pipeline, decode_ms: Sequence[float]) -> dict[str, list[float]]:
    """Milliseconds of every window by stage, in the order of `STAGES`; none before the first window."""
    found = {stage: list(durations) for stage, durations in pipeline.durations_ms.items()}
    if not found:
        return {}
    found["decode"] = list(decode_ms)
    parts = [found[stage] for stage in ("preprocess", "head", "decide")]
    found["besides encoders"] = [sum(durations) for durations in zip(*parts, strict=True)]
    found["encoders"] = [a - b for a, b in zip(found["window"], found["besides encoders"], strict=True)]
    found["end to end"] = [a + b for a, b in zip(found["window"], itertools.cycle(decode_ms), strict=False)]
    return {stage: found[stage] for stage in STAGES if stage in found}


def single_report(pipeline: Pipeline, decode_ms: Sequence[float], reference: Pipeline | None) -> Single | None:
    """Summarize, with ratios to `reference`; None before the first window."""
    durations = stage_durations(pipeline, decode_ms)
    if not durations:
        return None
    windows = durations["window"]
    half = len(windows) // 2
    return Single(
        stages={stage: Spread.of(values) for stage, values in durations.items()},
        ratios=None if reference in (None, pipeline) else ratios(reference, pipeline, decode_ms),
        drift=float(np.median(windows[half:]) / np.median(windows[:half]) - 1) if half else 0.0,
        durations_ms={stage: [round(value, 4) for value in values] for stage, values in durations.items()},
        cpu_ms=[round(value, 4) for value in pipeline.cpu_ms],
        yardstick_ms=[round(moment.wall_ms, 4) for moment in pipeline.yardstick],
        yardstick_cpu_ms=[round(moment.cpu_ms, 4) for moment in pipeline.yardstick],
    )


def ratios(slow: Pipeline | None, fast: Pipeline, decode_ms: Sequence[float]) -> dict[str, Ratio] | None:
    """How many times faster `fast` is than `slow`, by stage; None before the first window."""
    slower, faster = (stage_durations(each, decode_ms) if each else {} for each in (slow, fast))
    found = {
        stage: Ratio.of(slower[stage], faster[stage]) for stage in _COMPARED if stage in slower and stage in faster
    }
    return found or None
