"""Run all scenarios: open the rows, warm them up, measure, summarize; results so far survive an interruption."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ovavel.eval.bench.machine import describe_machine
from ovavel.eval.bench.media import NOISE, decode
from ovavel.eval.bench.meters.energy import EnergyMeter
from ovavel.eval.bench.meters.gpu import ClockWatch, Gpu, open_gpu
from ovavel.eval.bench.meters.memory import MemoryWatch
from ovavel.eval.bench.meters.rates import FLOOR_RULE, floor, measure_rates
from ovavel.eval.bench.meters.yardstick import YARDSTICK_RULE, Yardstick
from ovavel.eval.bench.pipeline import WARM_UP_RULE, Pipeline
from ovavel.eval.bench.report import (
    BackendReport,
    BenchReport,
    Capture,
    Live,
    Offline,
    Rates,
    Row,
    Trial,
)
from ovavel.eval.bench.rows import EAGER, OpenRow, RowSpec, compare_beside, open_row, own_rows
from ovavel.eval.bench.scenarios.capture import CAPTURE_RULE, run_capture
from ovavel.eval.bench.scenarios.live import LIVE_RULE, live_report, run_live
from ovavel.eval.bench.scenarios.offline import OFFLINE_RULE, run_offline
from ovavel.eval.bench.scenarios.single import SINGLE_RULE, ratios, run_single, single_report
from ovavel.eval.bench.settings import Settings
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.system.timing import Percentiles
from ovavel.runtime.types import Window
from ovavel.runtime.verification.gates import checked_here, find_gate
from ovavel.runtime.verification.self_check import self_check

__all__ = ["run_bench"]

_LEAST_WINDOWS, _MOST_WINDOWS = 30, 1000
_LONG_ENOUGH_S = 10.0

_PARITY_RULE = (
    "the golden inputs of the bundle, adversarial ones included, against PyTorch's outputs in fp32: cosine of "
    "embeddings and share of decisions, as `ovavel bundle check` does it"
)


def run_bench(
    bundle: Bundle,
    *,
    rows: Sequence[RowSpec] = (),
    device: str = "auto",
    threads: int | None = None,
    media: str | None = None,
    settings: Settings | None = None,
    progress: Progress = no_progress,
) -> BenchReport:
    """Measure a bundle, and PyTorch and other bundles beside it where `rows` name them.

    Args:
        bundle: what to run.
        rows: what to open, see `own_rows` and `reference_rows`; none: ONNX Runtime, as the bundle says.
        device: "cpu", "cuda", "cuda:N" or "auto".
        threads: cores for the encoders on the CPU.
        media: a recording; None makes a clip of noise.
        settings: what to measure; None: 30 windows of a single stream.
        progress: called at each stage.

    An interruption (`KeyboardInterrupt`) after the first measured window ends it early: the report is `partial`.

    Raises:
        UsageError: a number is not positive, a name unknown, or `media` is a live stream.
        MediaError, DeviceError, BundleError, CheckpointError, MissingExtraError: what cannot be opened, and why.
    """
    settings = settings or Settings(windows=_LEAST_WINDOWS)
    specs = rows or own_rows(("onnxruntime",), ())
    begin_s = time.perf_counter()
    progress("decoding")
    kept: dict[int, list[Window]] = {}
    decode_ms: list[float] = []
    bundles = [spec.of(bundle) for spec in specs]
    for rate_hz in dict.fromkeys(_rate_hz(each) for each in (bundle, *bundles)):
        kept[rate_hz], found_ms = decode(media, settings.windows or _LEAST_WINDOWS, rate_hz)
        decode_ms = decode_ms or found_ms
    bench = _Bench(bundle=bundle, kept=kept, decode_ms=decode_ms, settings=settings, progress=progress)
    try:
        bench.open(specs, bundles, device=device, threads=threads)
        try:
            bench.measure()
        except KeyboardInterrupt:
            if not bench.rows[0].pipeline or not bench.rows[0].pipeline.durations_ms:
                raise
            bench.partial = True
        return bench.report(media or NOISE, took_s=time.perf_counter() - begin_s)
    finally:
        bench.close()


@dataclass(slots=True, kw_only=True)
class _Results:
    offline: Offline | None = None
    live: Live | None = None
    capture: Capture | None = None
    gate: Gate | None = None
    clocks: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """One run: what is open and what was found so far."""

    bundle: Bundle
    kept: Mapping[int, Sequence[Window]]
    """Windows by the rate of their sound."""
    decode_ms: Sequence[float]
    settings: Settings
    progress: Progress
    rows: list[OpenRow] = field(default_factory=list)
    results: dict[str, _Results] = field(default_factory=dict)
    gpu: Gpu | None = None
    yardstick: Yardstick | None = None
    rates: Rates | None = None
    partial: bool = False

    def open(self, specs: Sequence[RowSpec], bundles: Sequence[Bundle], *, device: str, threads: int | None) -> None:
        """Open and warm up each row on its bundle. The first and PyTorch eager must open; others may say why not."""
        self.gpu = open_gpu(device)
        memory = MemoryWatch(device)
        for spec, bundle in zip(specs, bundles, strict=True):
            self.progress(f"{spec.name}: loading and warming up")
            row = open_row(
                spec,
                bundle,
                self._windows(bundle),
                device=device,
                threads=threads,
                memory=memory,
                warm_up_s=self.settings.warm_up_s,
                required=not self.rows or not spec.reference or spec.name == EAGER,
            )
            self.rows.append(row)
            self.results[spec.name] = _Results()
            if row.pipeline and len(self.rows) == 1:  # the others run where the first one does
                device, threads = row.pipeline.backend.info.device, row.pipeline.backend.info.threads
                self.gpu = self.gpu or open_gpu(device)

    def measure(self) -> None:
        """Go through the scenarios."""
        ready = {row.spec.name: row.pipeline for row in self.rows if row.pipeline}
        own = {row.spec.name: row.pipeline for row in self.rows if row.pipeline and not row.spec.reference}
        first = next(iter(ready.values())).backend.info
        if "single" in self.settings.scenarios:
            if first.device == "cpu":
                self.yardstick = Yardstick(first.threads)
            count = self.settings.windows or self._enough(list(ready.values()))
            run_single(
                list(ready.values()),
                [self._windows(pipeline.bundle) for pipeline in ready.values()],
                count,
                yardstick=self.yardstick,
                progress=self.progress,
            )
        if self.settings.rates:
            self.progress("what the device can do at best")
            libraries = {"torch"} if first.device != "cpu" or len(ready) > len(own) else set()
            self.rates = measure_rates(first.device, first.threads, frozenset(libraries))
        scenarios = {
            "parity": (self._parity, ready),
            "offline": (self._offline, ready),
            "live": (self._live, own or ready),
            "capture": (self._capture, own or ready),
        }
        for scenario, (measure, pipelines) in scenarios.items():
            if scenario not in self.settings.scenarios:
                continue
            for name, pipeline in pipelines.items():
                self.progress(f"{scenario}: {name}")
                try:
                    measure(name, pipeline)
                except OvavelError as error:
                    self.results[name].notes.append(f"{scenario}: {error}")

    def _enough(self, pipelines: Sequence[Pipeline]) -> int:
        """How many windows fill the time, by the first one."""
        begin_s = time.perf_counter()
        for pipeline in pipelines:
            pipeline.run(self._windows(pipeline.bundle)[0])
            pipeline.forget()
        round_s = time.perf_counter() - begin_s
        return int(np.clip(_LONG_ENOUGH_S / round_s, _LEAST_WINDOWS, _MOST_WINDOWS))

    def _parity(self, name: str, pipeline: Pipeline) -> None:
        self.results[name].gate = self_check(pipeline.bundle, pipeline.backend)

    def _offline(self, name: str, pipeline: Pipeline) -> None:
        settings, results = self.settings, self.results[name]
        with ClockWatch(self.gpu) as watch:
            results.offline = run_offline(
                pipeline,
                self._windows(pipeline.bundle),
                least_s=settings.offline_s,
                largest=settings.largest_batch,
                meter=EnergyMeter(pipeline.backend.info.device, self.gpu),
            )
        results.clocks = watch.reading

    def _live(self, name: str, pipeline: Pipeline) -> None:
        settings, results, trials = self.settings, self.results[name], list[Trial]()
        offline = results.offline
        guess = (
            offline.best.windows_per_s
            if offline
            else 1e3 / float(np.median(pipeline.durations_ms.get("window", [1e3])))
        )
        try:
            results.live = run_live(
                pipeline,
                self._windows(pipeline.bundle),
                guess=guess,
                deadline_ms=settings.deadline_ms,
                trial_s=settings.trial_s,
                most=settings.most_cameras,
                trials=trials,
            )
        except KeyboardInterrupt:
            if trials:
                results.live = live_report(
                    trials,
                    cameras=max((trial.cameras for trial in trials if trial.passed), default=0),
                    at_most=False,
                    deadline_ms=settings.deadline_ms,
                    trial_s=settings.trial_s,
                    batch=pipeline.backend.info.batch,
                )
            raise

    def _capture(self, name: str, pipeline: Pipeline) -> None:
        self.results[name].capture = run_capture(pipeline.bundle, pipeline.backend, self.settings.capture_windows)

    def report(self, media: str, *, took_s: float) -> BenchReport:
        """Sum up what is there."""
        first = self.rows[0]
        eager = next((row for row in self.rows if row.spec.name == EAGER and row.pipeline), None)
        runtime = self._backend_report(first)
        assert first.memory is not None and runtime is not None  # noqa: PT018 - a required row
        return BenchReport(
            machine=describe_machine(),
            bundle_sha256=self.bundle.sha256,
            model=self.bundle.manifest.model.name,
            media=media,
            windows=len(first.pipeline.durations_ms.get("window", [])) if first.pipeline else 0,
            runtime=runtime,
            peak_memory_mb=first.memory.host_mb,
            pytorch=self._backend_report(eager) if eager else None,
            ratios=ratios(eager.pipeline, first.pipeline, self.decode_ms) if eager and first.pipeline else None,
            rows=[self._row(row, eager) for row in self.rows],
            rates=self.rates,
            rules=self._rules(),
            partial=self.partial,
            took_s=round(took_s, 1),
        )

    def _row(self, row: OpenRow, eager: OpenRow | None) -> Row:
        pipeline, results = row.pipeline, self.results[row.spec.name]
        if pipeline is None:
            return Row(name=row.spec.name, reference=row.spec.reference, not_measured=row.not_measured)
        info = pipeline.backend.info
        single = single_report(pipeline, self.decode_ms, eager.pipeline if eager else None)
        medians = {stage: spread.p50 for stage, spread in single.stages.items()} if single else {}
        unchecked = not row.spec.reference and results.gate is None
        known = find_gate(pipeline.bundle, info) if unchecked else None
        return Row(
            name=row.spec.name,
            reference=row.spec.reference,
            backend=info,
            load_s=row.load_s,
            warm_up=row.warm_up,
            memory=row.memory,
            single=single,
            beside=compare_beside(row, self.rows[0]) if row.spec.beside else None,
            offline=results.offline,
            live=results.live,
            capture=results.capture,
            floor=floor(pipeline.bundle, info, self.rates, medians) if self.rates else None,
            gate=results.gate,
            known_gate=known,
            known_gate_checked_here=checked_here(pipeline.bundle, known),
            clocks=results.clocks,
            notes=results.notes,
        )

    def _windows(self, bundle: Bundle) -> Sequence[Window]:
        """The windows as the encoders of `bundle` take them."""
        return self.kept[_rate_hz(bundle)]

    def _backend_report(self, row: OpenRow) -> BackendReport | None:
        if row.pipeline is None:
            return None
        single = single_report(row.pipeline, self.decode_ms, None)
        stages = single.stages if single else {}
        return BackendReport(
            backend=row.pipeline.backend.info,
            stages_ms={stage: Percentiles(each.p50, each.p95, each.p99) for stage, each in stages.items()},
        )

    def _rules(self) -> dict[str, str]:
        of_scenario = {
            "parity": _PARITY_RULE,
            "single": SINGLE_RULE,
            "offline": OFFLINE_RULE,
            "live": LIVE_RULE,
            "capture": CAPTURE_RULE,
        }
        rules = {"warm-up": f"{WARM_UP_RULE}; here {self.settings.warm_up_s:g} s"}
        rules |= {name: rule for name, rule in of_scenario.items() if name in self.settings.scenarios}
        if self.yardstick:
            rules["yardstick"] = YARDSTICK_RULE
        return rules | ({"floor": FLOOR_RULE} if self.rates else {})

    def close(self) -> None:
        """Give all memory back."""
        for row in self.rows:
            if row.pipeline:
                row.pipeline.close()
        if self.yardstick:
            self.yardstick.close()


def _rate_hz(bundle: Bundle) -> int:
    return sound_rate(bundle.manifest.encoders)
