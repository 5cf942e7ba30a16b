"""The full pipeline of one backend, timed window by window, and its warm-up rule."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovavel.eval.bench.meters.yardstick import Moment, Yardstick
from ovavel.eval.bench.report import WarmUp
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.runtime.system.timing import Timings
from ovavel.runtime.types import Segment, Window

__all__ = ["WARM_UP_RULE", "Decider", "Pipeline"]

_STEADY = 0.05
_LEAST_WINDOWS = 3
_LEAST_S = 0.25

WARM_UP_RULE = (
    f"windows are run until the median of the last k differs by less than {_STEADY:.0%} from that of the k before; k "
    f"is at least {_LEAST_WINDOWS} and as many as take {_LEAST_S:g} s; a limit in seconds ends it, and the row says so"
)


class Decider:
    """The head and the event tracker of one source."""

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self._localizer = Localizer(backend.head, bundle.vocabulary, rule=bundle.manifest.fusion.decides)
        self._tracker = EventTracker(bundle.vocabulary.background)
        self._index = 0

    def decide(self, segment: Segment, timings: Timings) -> None:
        """Process the next second. The few repeated windows are treated as one long stream."""
        segment = Segment(index=self._index, start_s=float(self._index), vision=segment.vision, audio=segment.audio)
        self._index += 1
        with timings.measure("head"):
            scores = self._localizer.push(segment)
        with timings.measure("decide"):
            self._tracker.push(scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """Measurements of one complete window, stored together so that an interruption leaves whole windows."""

    durations_ms: dict[str, float]
    """Milliseconds by stage; `window` is the total."""
    cpu_ms: float
    yardstick: Moment | None


class Pipeline:
    """Everything that happens to a window after decoding, with the runtime's own parts."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._records: list[_Record] = []
        self._timings = Timings()
        self.encoder = Encoder(backend, self._timings)
        self._decider = Decider(backend, bundle)

    @property
    def durations_ms(self) -> dict[str, list[float]]:
        """Durations by stage, one per window completed by `run`; empty before the first one."""
        found: dict[str, list[float]] = {}
        for record in self._records:
            for stage, duration_ms in record.durations_ms.items():
                found.setdefault(stage, []).append(duration_ms)
        return found

    @property
    def cpu_ms(self) -> list[float]:
        """Processor time of each window."""
        return [record.cpu_ms for record in self._records]

    @property
    def yardstick(self) -> list[Moment]:
        """Yardstick measurements just before each window, if one was given."""
        return [record.yardstick for record in self._records if record.yardstick]

    def run(self, window: Window, yardstick: Yardstick | None = None) -> float:
        """Process one window up to its decision, record the durations, and return the total in milliseconds."""
        self._timings.clear()
        moment = yardstick.measure() if yardstick else None
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        self._decider.decide(self.encoder.encode([window])[0], self._timings)
        duration_ms = (time.perf_counter() - begin_s) * 1e3
        cpu_ms = (time.process_time() - begin_cpu_s) * 1e3
        stages = {stage: self._timings.durations_ms(stage)[0] for stage in self._timings.stages()}
        self._records.append(_Record(durations_ms={**stages, "window": duration_ms}, cpu_ms=cpu_ms, yardstick=moment))
        return duration_ms

    def forget(self) -> None:
        """Discard all durations, after warm-up."""
        self._records.clear()

    def warm_up(self, windows: Sequence[Window], *, limit_s: float) -> WarmUp:
        """Run until it is steady (`WARM_UP_RULE`) or `limit_s` has passed."""
        begin_s = time.perf_counter()
        self.backend.warm_up()
        durations: list[float] = []
        moved, steady = float("inf"), False
        for window in itertools.cycle(windows):
            durations.append(self.run(window))
            k = max(_LEAST_WINDOWS, int(np.ceil(_LEAST_S * 1e3 / float(np.median(durations)))))
            if len(durations) >= 2 * k:
                before, last = (float(np.median(part)) for part in (durations[-2 * k : -k], durations[-k:]))
                moved = abs(last / before - 1)
                steady = moved < _STEADY
            if steady or (time.perf_counter() - begin_s > limit_s and np.isfinite(moved)):
                break
        self.forget()
        return WarmUp(
            windows=len(durations), seconds=round(time.perf_counter() - begin_s, 3), steady=steady, moved=moved
        )

    def close(self) -> None:
        """Free the backend's memory."""
        self.encoder.close()
        self.backend.close()
