"""Durations of each stage over the last windows."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Percentiles", "Stopwatch", "Timings"]


class Percentiles(NamedTuple):
    """Milliseconds."""

    p50: float
    p95: float
    p99: float


class Stopwatch:
    """Sums up the time spent in `with` blocks of one thread. The sum can be read from any thread."""

    def __init__(self) -> None:
        self._sum_s = 0.0
        self._began_s: float | None = None

    def __enter__(self) -> None:
        self._began_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert self._began_s is not None
        self._sum_s, self._began_s = self._sum_s + time.monotonic() - self._began_s, None

    @property
    def total_s(self) -> float:
        """Seconds so far, including a block that is still running."""
        began_s = self._began_s
        return self._sum_s + (0.0 if began_s is None else time.monotonic() - began_s)


class Timings:
    """Durations by stage, the newest `keep` of each, in milliseconds. Adding and reading are safe from any thread."""

    def __init__(self, keep: int = 1000) -> None:
        self._durations_ms: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=keep))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time a `with` block as one duration of `stage`."""
        start_s = time.perf_counter()
        yield
        self.add(stage, (time.perf_counter() - start_s) * 1e3)

    def add(self, stage: str, duration_ms: float) -> None:
        """Record one duration of `stage`."""
        self._durations_ms[stage].append(duration_ms)

    def clear(self) -> None:
        """Forget everything, once warm-up is over."""
        self._durations_ms.clear()

    def stages(self) -> tuple[str, ...]:
        """The stages seen so far, in the order of their first duration."""
        return tuple(self._durations_ms)

    def durations_ms(self, stage: str) -> tuple[float, ...]:
        """Return the recorded durations of `stage`, oldest first; empty for an unknown stage."""
        return tuple(self._durations_ms[stage]) if stage in self._durations_ms else ()

    def percentiles(self, stage: str) -> Percentiles | None:
        """p50, p95 and p99 of `stage` by the nearest rank, or None for a stage never seen."""
        ordered = sorted(self.durations_ms(stage))
        if not ordered:
            return None
        return Percentiles(*(ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 95, 99)))
