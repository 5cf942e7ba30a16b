"""Compare two reports of `ovavel bench run`, and separate changes from noise.

Both runs measured a yardstick just before each window, so that a generally slower machine cancels out. The comparison
uses the logarithm of window over yardstick, window by window, both in wall-clock and in processor time: a program that
competes for the cores affects the former, one that shares their caches or clock the latter. The interquartile means of
the two runs are compared; the uncertainty of their difference comes from resampling blocks of neighbouring windows
(circular block bootstrap; Politis and Romano, 1992), since noise comes in bursts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ovavel.eval.bench.read import ReadRow, Report
from ovavel.eval.bench.report import FORMAT
from ovavel.runtime.errors import InputError

__all__ = ["COMPARE_RULE", "LEAST_WINDOWS", "Change", "Comparison", "compare"]

# n windows of a run, R draws of the bootstrap

LEAST_WINDOWS = 20
ENOUGH_WINDOWS = 200
TOLERANCE = 0.08
"""Identical runs differ by up to this through memory and thread placement, which the bootstrap cannot see."""
CLOCK_ALONE = 0.25
_DRAWS = 2000
_BLOCKS = 10
_LEVEL = 0.95

COMPARE_RULE = (
    f"slower or faster: the {_LEVEL:.0%} interval of the change, the mean of that on the clock and that in processor "
    f"time, lies beyond {TOLERANCE:.0%} and neither is below {TOLERANCE / 2:.0%}; or the clock alone is beyond "
    f"{CLOCK_ALONE:.0%}. Without a yardstick (GPU): the clock is beyond {TOLERANCE:.0%}"
)

Verdict = Literal["slower", "faster", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Relative change; 0.15 is 15 % more."""

    share: float
    low: float
    """Lower end of the interval; `high` is the upper one."""
    high: float

    def beyond(self, tolerance: float) -> Verdict:
        """Return whether the whole interval lies beyond a slow-down or speed-up of `tolerance`."""
        if self.low > tolerance:
            return "slower"
        return "faster" if self.high < 1 / (1 + tolerance) - 1 else "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """One row in both reports."""

    name: str
    p50_ms: tuple[float, float]
    """Milliseconds per window in the first and second report, as measured."""
    p99_ms: tuple[float, float]
    clock: Change
    """Change of wall-clock time per window, relative to the yardstick if there is one."""
    processor: Change | None
    """Change of processor time per window relative to the yardstick; None without a yardstick."""
    both: Change | None
    """Mean of these two, whose disturbances partly cancel."""
    stages: dict[str, Change]
    """Wall-clock changes by stage, to locate a change; not part of the verdict."""
    others: dict[str, tuple[float, float]]
    """Memory, offline rate and cameras, if both reports have them; not part of the verdict."""
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Comparison of two reports."""

    rows: list[RowChange]
    unlike: list[str]
    """Other differences between the two runs."""
    cautions: list[str]
    """Reasons why the verdict may be less reliable."""

    @property
    def slower(self) -> bool:
        """Whether any row became slower beyond noise."""
        return any(row.verdict == "slower" for row in self.rows)


def compare(before: Report, after: Report) -> Comparison:
    """Compare rows of the same name, or the only row of each report whatever its name.

    Raises:
        InputError: nothing can be compared, or a row has too few windows.
    """
    for report in (before, after):
        if report.format != FORMAT:
            raise InputError(f"a report has format {report.format}, but this version compares {FORMAT}; measure again")
    pairs = _pairs(before.rows, after.rows)
    if not pairs:
        names = [", ".join(row.name for row in report.rows if row.single) or "none" for report in (before, after)]
        raise InputError(f"no row was measured in both: the first has {names[0]}; the second {names[1]}")
    return Comparison(
        rows=[_row_change(one, other) for one, other in pairs],
        unlike=_unlike(before, after, pairs),
        cautions=_cautions(pairs),
    )


def _pairs(before: Sequence[ReadRow], after: Sequence[ReadRow]) -> list[tuple[ReadRow, ReadRow]]:
    measured = [[row for row in rows if row.single] for rows in (before, after)]
    own = [[row for row in rows if not row.reference] for rows in measured]
    named = {row.name: row for row in measured[1]}
    pairs = [(row, named[row.name]) for row in measured[0] if row.name in named]
    if len(own[0]) == len(own[1]) == 1 and own[0][0].name != own[1][0].name:
        pairs.insert(0, (own[0][0], own[1][0]))
    return pairs


def _row_change(before: ReadRow, after: ReadRow) -> RowChange:
    one, other = before.single, after.single
    assert one is not None and other is not None  # noqa: PT018 - `_pairs` takes no others
    for single in (one, other):
        windows = len(single.durations_ms["window"])
        if windows < LEAST_WINDOWS:
            raise InputError(
                f"{before.name}: {windows} windows are too few to distinguish a change from noise; measure at least "
                f"{LEAST_WINDOWS}, preferably {ENOUGH_WINDOWS}, with --windows"
            )
    yardstick = bool(one.yardstick_ms and other.yardstick_ms)
    stages = [
        {stage for stage, durations in s.durations_ms.items() if len(durations) == len(s.durations_ms["window"])}
        for s in (one, other)
    ]  # a sense that the media has for a part of the time has no duration in some windows
    clock = {
        stage: _change(*(_relative(s.durations_ms[stage], s.yardstick_ms if yardstick else []) for s in (one, other)))
        for stage in one.durations_ms
        if stage in stages[0] & stages[1] and stage in ("preprocess", "vision", "audio", "head", "decide", "window")
    }
    window, logs = clock.pop("window"), [_relative(s.durations_ms["window"], s.yardstick_ms) for s in (one, other)]
    cpu_logs = [_relative(s.cpu_ms, s.yardstick_cpu_ms) for s in (one, other)] if yardstick else []
    processor = _change(*cpu_logs) if yardstick else None
    both = _change(*(np.stack(pair) for pair in zip(logs, cpu_logs, strict=True))) if yardstick else None
    return RowChange(
        name=before.name if before.name == after.name else f"{before.name} → {after.name}",
        p50_ms=(one.stages["window"].p50, other.stages["window"].p50),
        p99_ms=(one.stages["window"].p99, other.stages["window"].p99),
        clock=window,
        processor=processor,
        both=both,
        stages=clock,
        others=_others(before, after),
        verdict=_verdict(window, processor, both),
    )


def _verdict(clock: Change, processor: Change | None, both: Change | None) -> Verdict:
    if processor is None or both is None:
        return clock.beyond(TOLERANCE)
    verdict = both.beyond(TOLERANCE)
    shares = clock.share, processor.share
    agreed = min(shares) > TOLERANCE / 2 if verdict == "slower" else max(shares) < -TOLERANCE / 2
    return verdict if agreed else clock.beyond(CLOCK_ALONE)


def _relative(durations: Sequence[float], yardstick: Sequence[float]) -> NDArray[np.float64]:
    """Return logarithms (n,) of durations, relative to the yardstick if there is one."""
    # A stage may be shorter than the clock's tick.
    logs: NDArray[np.float64] = np.log(np.maximum(durations, 1e-4))
    return logs - np.log(np.maximum(yardstick, 1e-4)) if len(yardstick) else logs


def _change(before: NDArray[np.float64], after: NDArray[np.float64]) -> Change:
    """Return the change of the centre of (n,) values with its bootstrap interval; of (m, n), of the mean centre."""
    random = default_rng(0)
    moved = _middle(np.atleast_2d(after)).mean() - _middle(np.atleast_2d(before)).mean()
    draws = _drawn(np.atleast_2d(after), random) - _drawn(np.atleast_2d(before), random)
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Change(share=float(np.expm1(moved)), low=float(np.expm1(low)), high=float(np.expm1(high)))


def _drawn(values: NDArray[np.float64], random: Generator) -> NDArray[np.float64]:
    """Return (R,) mean centres of (m, n), resampled in circular blocks of neighbouring windows."""
    n = values.shape[1]
    length = -(-n // _BLOCKS)
    starts = random.integers(0, n, (_DRAWS, -(-n // length)))
    places = ((starts[..., None] + np.arange(length)) % n).reshape(_DRAWS, -1)[:, :n]
    drawn: NDArray[np.float64] = np.mean([_middle(row[places]) for row in values], axis=0)
    return drawn


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean of each row of (R, n)."""
    n = values.shape[1]
    ordered = np.sort(values, axis=1)[:, n // 4 : n - n // 4]
    middle: NDArray[np.float64] = ordered.mean(axis=1)
    return middle


def _others(before: ReadRow, after: ReadRow) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    if before.memory and after.memory:
        found["resident memory, MB"] = (before.memory.host_mb, after.memory.host_mb)
    if before.offline and after.offline:
        found["offline, windows/s"] = (before.offline.best.windows_per_s, after.offline.best.windows_per_s)
    if before.live and after.live:
        found["live, cameras"] = (before.live.cameras, after.live.cameras)
    return found


def _cautions(pairs: Sequence[tuple[ReadRow, ReadRow]]) -> list[str]:
    found = []
    for pair in pairs:
        windows = min(len(row.single.durations_ms["window"]) for row in pair if row.single)
        if windows < ENOUGH_WINDOWS:
            found.append(f"{pair[1].name}: {windows} windows show only large changes; {ENOUGH_WINDOWS} show more")
    return found


def _unlike(before: Report, after: Report, pairs: Sequence[tuple[ReadRow, ReadRow]]) -> list[str]:
    """Describe other differences between the runs."""
    found = {
        "the processor": (before.machine.cpu, after.machine.cpu),
        "the cores": (before.machine.cores, after.machine.cores),
        "the GPU": (" and ".join(before.machine.gpus), " and ".join(after.machine.gpus)),
        "the media": (before.media, after.media),
    }
    features = before.machine.cpu_features, after.machine.cpu_features
    if features[0] is not None and features[1] is not None:
        found["the processor's features"] = (" ".join(features[0]), " ".join(features[1]))
    backends = [(one.backend, other.backend) for one, other in pairs[:1] if one.backend and other.backend]
    for one, other in backends:
        found["the device"] = (one.device, other.device)
        found["the threads"] = (one.threads, other.threads)
    versions = before.machine.versions, after.machine.versions
    for library in sorted({*versions[0], *versions[1]}):
        found[library] = (versions[0].get(library, "missing"), versions[1].get(library, "missing"))
    return [f"{what}: {one or 'none'}, then {other or 'none'}" for what, (one, other) in found.items() if one != other]
