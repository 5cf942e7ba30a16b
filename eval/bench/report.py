"""Result of `ovavel bench run` as plain values: written as JSON, read by `compare`, shown as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ovavel.eval.bench.machine import Machine
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.system.timing import Percentiles

__all__ = [
    "FORMAT",
    "STAGES",
    "BackendReport",
    "Batch",
    "BenchReport",
    "Capture",
    "Floor",
    "Live",
    "Memory",
    "Offline",
    "Rates",
    "Ratio",
    "Row",
    "Single",
    "Spread",
    "Trial",
    "WarmUp",
    "percentile",
]

FORMAT = 2
"""Of the JSON file. Files without one hold no raw durations."""

STAGES = (
    *("decode", "preprocess", "vision", "audio", "encoders", "head", "decide"),
    *("besides encoders", "window", "end to end"),
)
"""`encoders` is vision and audio, which a GPU may run at once; `besides encoders` is preprocess, head and decide;
`window` is both; `end to end` adds decoding."""


def percentile(values: Sequence[float], percent: int) -> float:
    """Of `values` by the nearest rank: the smallest that at least `percent` % of them do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Percentiles of durations by the nearest rank, milliseconds."""

    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> Spread:
        """Summarize at least one duration."""
        return cls(**{f"p{percent}": percentile(durations_ms, percent) for percent in (50, 90, 95, 99)})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReport:
    """One backend's figures, one window at a time."""

    backend: BackendInfo
    stages_ms: dict[str, Percentiles]
    """Milliseconds a window, by stage; a sense the media lacks has no stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Speed relative to the reference."""

    of_medians: float
    p5: float
    """Of the ratios of the single pairs, as are `p50` and `p95`."""
    p50: float
    p95: float

    @classmethod
    def of(cls, slow: Sequence[float], fast: Sequence[float]) -> Ratio:
        """Compare durations measured in turns; a pair is missing if the run was interrupted."""
        count = min(len(slow), len(fast))
        pairs = np.array(slow[:count]) / np.array(fast[:count])
        p5, p50, p95 = (float(value) for value in np.percentile(pairs, [5, 50, 95]))
        return cls(of_medians=float(np.median(slow[:count]) / np.median(fast[:count])), p5=p5, p50=p50, p95=p95)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Warm-up before the measurements."""

    windows: int
    seconds: float
    steady: bool
    """Whether it became steady by the rule; otherwise the time limit ended it."""
    moved: float
    """Relative difference of the rule's last two medians."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """Single stream: the next window starts as soon as the previous one is decided."""

    stages: dict[str, Spread]
    ratios: dict[str, Ratio] | None
    """Ratios to the reference row by stage; None for that row itself, or without one."""
    drift: float
    """Median window of the second half of the run over that of the first, less 1."""
    durations_ms: dict[str, list[float]]
    """By stage, in the order they were measured: what `compare` works with."""
    cpu_ms: list[float]
    """Processor time of each window, all threads of the process together."""
    yardstick_ms: list[float]
    """The yardstick just before each window, on the clock: how fast the machine was at that moment. Empty on a GPU."""
    yardstick_cpu_ms: list[float]
    """The same in processor time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Throughput of one batch size."""

    size: int
    windows_per_s: float
    """Of the median call."""
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """Offline: all windows are available at once."""

    best: Batch
    batches: list[Batch]
    ended: str
    """Why no larger batch was tried."""
    energy_j: float | None
    """Energy of the whole device per window in the best batch; None if the device does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Trial with a fixed number of cameras."""

    cameras: int
    windows: int
    """Decided windows: fewer than were sent if the trial failed early."""
    latency_ms: Spread
    """From a window's arrival to its decision, queueing included."""
    missed: int
    """Windows decided later than the deadline."""
    caught_up: bool
    """Whether, in the second half, there was a moment when nothing waited: the queue did not grow without end."""
    largest_batch: int
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Live: N cameras send a window a second each, whether or not the ones before are decided."""

    cameras: int
    """Largest number that passed; 0 if one was too many."""
    at_most: bool
    """True if the search ended at its limit: more might pass."""
    deadline_ms: float
    trial_s: float
    batch: int
    """Largest number of windows encoded at once."""
    trials: list[Trial]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """From a camera's picture and sound to the decision, through the network and the whole session."""

    windows: int
    frame_ms: Spread
    """From the moment the camera drew the frame a window keeps to the window's decision; half of the window's second
    is still to come when that frame is drawn."""
    sound_ms: Spread | None
    """From the moment the last sample of a window was made to its decision; None where sound was not asked for."""
    dropped: int
    """Windows that the session dropped because the encoder was too slow."""
    camera: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one row, in units of 2^20 bytes."""

    host_mb: float
    """Largest increase of resident memory from loading and the first windows; the first row includes the process."""
    device_mb: float | None
    """Increase of used GPU memory; None on a CPU and if the driver does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Best rates of the device in this run: an upper limit."""

    device: str
    bytes_per_s: float
    """Reading memory."""
    flops_per_s: dict[str, float]
    """Multiplying large matrices, by precision; a multiplication and an addition are two operations."""
    by: dict[str, str]
    """Library of each measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Both encoders on one window: least time by `Rates`, and the share of it that was reached."""

    weight_bytes: int
    flops: float
    memory_ms: float
    """Reading all weights once."""
    compute_ms: float
    floor_ms: float
    """The larger of the two."""
    reached: float
    """`floor_ms` over the median time of both encoders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A row of another bundle than the first row's."""

    model: str
    bundle_sha256: str
    window: Ratio | None
    """How many times as long it takes for a window."""
    memory: float | None
    """How many times as much memory it adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One backend, precision and set of options."""

    name: str
    reference: bool
    """Whether it is PyTorch, run for comparison."""
    not_measured: str | None = None
    """Reason for missing figures."""
    backend: BackendInfo | None = None
    load_s: float | None = None
    warm_up: WarmUp | None = None
    memory: Memory | None = None
    single: Single | None = None
    beside: Beside | None = None
    """How it compares with the first row, if it runs another bundle."""
    offline: Offline | None = None
    live: Live | None = None
    capture: Capture | None = None
    floor: Floor | None = None
    gate: Gate | None = None
    """The comparison with PyTorch on the bundle's golden inputs, made in this run."""
    known_gate: Gate | None = None
    """A previously known one, if none was made in this run; None for PyTorch."""
    known_gate_checked_here: bool = False
    """Whether that one was made on this machine rather than shipped in the bundle."""
    clocks: str | None = None
    """GPU clocks under load, from the driver."""
    notes: list[str] = field(default_factory=list)
    """Scenarios that failed, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Result of `ovavel bench run`."""

    format: int = FORMAT
    machine: Machine
    bundle_sha256: str
    model: str
    media: str
    windows: int
    runtime: BackendReport
    """The first row, one window at a time."""
    peak_memory_mb: float
    """Peak resident memory while only the first row was loaded and running, in units of 2^20 bytes."""
    pytorch: BackendReport | None = None
    """PyTorch eager in fp32, where it was run too."""
    ratios: dict[str, Ratio] | None = None
    """How many times faster `runtime` is than `pytorch`, by stage."""
    rows: list[Row]
    rates: Rates | None = None
    rules: dict[str, str]
    """Descriptions of the measurement rules."""
    partial: bool = False
    """Whether it was interrupted: figures are of what was measured until then."""
    took_s: float
