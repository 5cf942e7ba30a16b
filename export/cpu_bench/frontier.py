"""Accuracy versus speed on this CPU: every way to run the encoders, interleaved in one run.

Each candidate is a separate process, so that its memory can be measured. Each window goes through PyTorch and a few
candidates one after the other, so that a busy moment of the machine affects them all; only one runs at a time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.bench.machine import Machine, describe_machine
from ovavel.eval.bench.meters.cost import flops
from ovavel.eval.bench.meters.rates import IntegerPeak, measure_integer_peak
from ovavel.export.cpu_bench.candidates import CANDIDATES, Candidate
from ovavel.export.cpu_bench.operators import operator_times
from ovavel.export.cpu_bench.worker import Worker, open_worker
from ovavel.export.graphs import traced
from ovavel.export.inputs import SENSES, Sense, calibration_inputs, sense_inputs
from ovavel.export.precision.activations import Activation, observe_activations
from ovavel.export.precision.outliers import plant_outliers
from ovavel.export.speed import EQUALLY_FAST
from ovavel.runtime.bundle.precision import POOLED, of_graph
from ovavel.runtime.errors import DeviceError, ExportError, OvavelError
from ovavel.runtime.system.hardware import physical_cores
from ovavel.runtime.system.progress import Progress, no_progress, part_of
from ovavel.runtime.system.timing import Percentiles
from ovavel.runtime.verification.compare import compare_embeddings, embedding_failure
from ovavel.runtime.verification.requirements import requirement

if TYPE_CHECKING:
    from ovavel.training.models.imagebind.model import ImageBindConfig, PatchTower

__all__ = ["Frontier", "FrontierRow", "default_of", "measure_frontier"]

# B batch, D embedding size

_REST_S = 0.05  # lets the threads of one candidate go idle before the next one is timed
_WARM_UP = 2
_TOGETHER = 3
"""Candidates in memory at once, besides the reference: without enough memory, weights would be read from disk again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierRow:
    """Figures of one candidate."""

    name: str
    not_measured: str | None = None
    """Why the figures below are missing."""
    window_ms: Percentiles | None = None
    """Time of vision and audio together, one window at a time."""
    times_faster: float = 0
    """Speed-up over PyTorch eager fp32: the median of the pairwise ratios."""
    times_faster_p5: float = 0
    times_faster_p95: float = 0
    min_cosine: Mapping[Sense, float] | None = None
    """Minimum cosine with PyTorch eager fp32 over all windows, by encoder."""
    encoder_ms: Mapping[Sense, float] | None = None
    """Median time of each encoder by itself; None where one graph holds both."""
    of_integer_peak: Mapping[Sense, float] | None = None
    """Operations of each encoder over its time, as a share of the machine's integer peak; None if not in 8 bits."""
    first_result_s: float = 0
    """From the start of its process to its first window: imports, hashing, loading, warm-up. Files may be cached."""
    peak_mb: float = 0
    """Peak memory of its process, in units of 2^20 bytes."""
    gate: str = ""
    """The precision whose gate applies."""
    exact: bool = True
    """Whether this CPU sums its products without saturation; otherwise it is never the default."""
    passed: bool = False
    """Whether every embedding is as accurate as that precision requires. Decisions are not compared here."""
    exported: bool = False
    """Whether a bundle can contain it, as `gate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All candidates on one machine, with one set of weights."""

    machine: Machine
    model: str
    weights: str
    """Description of the weights."""
    windows: int
    threads: int
    integer_peak: IntegerPeak
    rows: tuple[FrontierRow, ...]
    default: str | None
    """Name of the fastest one that a bundle can contain, that passes its gate and that this CPU computes exactly."""
    operators: Mapping[Sense, Mapping[str, float]]
    """Milliseconds of that one by operator, the largest first, where ONNX Runtime runs it."""


def measure_frontier(
    weights: Path,
    folder: Path,
    *,
    config: ImageBindConfig,
    outliers: bool = False,
    windows: int = 24,
    threads: int | None = None,
    candidates: Sequence[Candidate] = CANDIDATES,
    progress: Progress = no_progress,
) -> Frontier:
    """Write the encoders in every form into `folder` and run all candidates, interleaved.

    Args:
        weights: ImageBind checkpoint.
        folder: empty folder for the graphs, 17 GB at full size; the caller removes it.
        config: size of the model.
        outliers: first add the outliers of trained weights.
        windows: number of different windows that each candidate runs.
        threads: number of threads; None: one per physical core.
        candidates: candidates; the first one is the reference.
        progress: called at each stage.

    Raises:
        CheckpointError: invalid checkpoint.
        ExportError: the reference could not be measured.
    """
    cases: dict[Sense, list[NDArray[np.float32]]] = {
        encoder: [array[None] for array in sense_inputs(encoder, config.encoders, range(windows)).values()][:windows]
        for encoder in SENSES
    }
    for number, encoder in enumerate(SENSES):
        progress(f"{encoder}: writing", number / 4)
        _write(encoder, weights, folder, config, candidates, outliers=outliers)
    _join(folder, candidates)
    threads = threads or physical_cores()
    peak = measure_integer_peak(threads)
    reference, *others = candidates
    measured: dict[str, _Measured] = {}
    problems: dict[str, str] = {}
    groups = [others[start : start + _TOGETHER] for start in range(0, len(others), _TOGETHER)]
    for number, group in enumerate(groups):
        begin, share = 0.5 + 0.5 * number / len(groups), 0.5 / len(groups)
        with ExitStack() as stack:
            workers = {}
            for candidate in (reference, *group):
                progress(f"loading {candidate.name}", begin)
                try:
                    workers[candidate.name] = stack.enter_context(open_worker(candidate, folder, config, threads))
                except OvavelError as error:
                    problems[candidate.name] = str(error)
            if reference.name in problems:
                raise ExportError(f"{reference.name} could not be measured: {problems[reference.name]}")
            _take_turns(workers, cases, measured, problems, part_of(progress, begin, share))
    peak = peak.or_higher(measure_integer_peak(threads))  # the machine may have been busy
    rows = tuple(
        FrontierRow(
            name=candidate.name, not_measured=problems[candidate.name], gate=candidate.gate, exact=candidate.exact
        )
        if candidate.name in problems
        else _row(candidate, measured[candidate.name], measured[reference.name], peak, config)
        for candidate in candidates
    )
    default = default_of(rows)
    shapes = {sense: cases[sense][0].shape for sense in SENSES}
    return Frontier(
        machine=describe_machine(),
        model=f"imagebind_{config.name}",
        weights=f"{weights.name}, with outliers planted" if outliers else weights.name,
        windows=windows,
        threads=threads,
        integer_peak=peak,
        rows=rows,
        default=default,
        operators={
            sense: operator_times(folder / f"{sense}.{candidate.file}.onnx", threads, shapes[sense])
            for candidate in candidates
            if candidate.name == default and candidate.engine == "onnxruntime"
            for sense in SENSES
        },
    )


def default_of(rows: Sequence[FrontierRow]) -> str | None:
    """Return the name of the fastest candidate that a bundle can contain, that passes its gate and is exact here.

    Among those equally fast within noise, it is the most accurate. None that pools sound is a default.
    """
    eligible = [row for row in rows if row.exported and row.passed and row.exact and row.gate not in POOLED]
    fastest = max((row.times_faster for row in eligible), default=0)
    even = [row for row in eligible if row.times_faster >= EQUALLY_FAST * fastest]
    return max(even, key=lambda row: min((row.min_cosine or {}).values(), default=0)).name if even else None


def _join(folder: Path, candidates: Sequence[Candidate]) -> None:
    """Join both encoders into one graph for candidates that need it."""
    import onnx_ir

    for file in {candidate.file for candidate in candidates if candidate.engine == "onnxruntime, one graph"}:
        vision, audio = (onnx_ir.load(folder / f"{sense}.{file}.onnx") for sense in SENSES)
        graph, other = vision.graph, audio.graph
        nodes, initializers = list(other), list(other.initializers.values())
        outputs, inputs = list(other.outputs), list(other.inputs)
        values = {*initializers, *inputs, *(value for node in nodes for value in node.outputs)}
        other.outputs.clear()
        other.inputs.clear()
        other.remove(nodes)
        other.initializers.clear()
        for value in values:
            value.name = f"audio_{value.name}"
        for node in nodes:
            node.name = None
        for value in initializers:
            graph.register_initializer(value)
        graph.inputs.extend(inputs)
        graph.extend(nodes)
        graph.outputs.extend(outputs)
        onnx_ir.save(vision, folder / f"joined.{file}.onnx", external_data=f"joined.{file}.onnx.data")


def _write(
    encoder: Sense,
    weights: Path,
    folder: Path,
    config: ImageBindConfig,
    candidates: Sequence[Candidate],
    *,
    outliers: bool,
) -> None:
    """Write the graph of `encoder` in each required form, and its weights for PyTorch."""
    import onnx_ir
    from safetensors.torch import save_model

    from ovavel.training.models.imagebind.model import ImageBind
    from ovavel.training.models.imagebind.pooled import PooledTower

    tower = ImageBind.load(weights, config, modalities=(encoder,)).towers[encoder]
    if outliers:
        plant_outliers(tower)
    save_model(tower, str(folder / f"{encoder}.safetensors"))
    graphs = [each for each in candidates if each.engine != "torch"]
    forms = {of_graph(encoder, each.file): each.write for each in reversed(graphs)}  # of several the first one's
    for pooled in dict.fromkeys(file in POOLED for file in forms):
        module = PooledTower(cast("PatchTower", tower)).eval() if pooled else tower
        seen: list[Activation] = observe_activations(module, calibration_inputs(encoder, config.encoders))
        model = traced(encoder, module, encoders=config.encoders)
        for file, write in forms.items():
            if (file in POOLED) == pooled:
                form = model.clone()
                if write:
                    write(form, seen)
                name = f"{encoder}.{file}.onnx"
                onnx_ir.save(form, folder / name, external_data=f"{name}.data")
                del form
                gc.collect()


@dataclass(slots=True)
class _Measured:
    """Measurements of one candidate; for the reference, those of the last group."""

    window_ms: list[float] = field(default_factory=list)
    encoder_ms: list[Mapping[Sense, float]] = field(default_factory=list)
    reference_ms: list[float] = field(default_factory=list)
    """Times of the reference for the same windows."""
    answers: dict[Sense, list[NDArray[np.float32]]] = field(default_factory=lambda: {sense: [] for sense in SENSES})
    first_result_s: float = 0
    peak_mb: float = 0


def _take_turns(
    workers: dict[str, Worker],
    cases: Mapping[Sense, Sequence[NDArray[np.float32]]],
    measured: dict[str, _Measured],
    problems: dict[str, str],
    progress: Progress = no_progress,
) -> None:
    """Run each window through all `workers`, the first of which is the reference, after a warm-up.

    A worker that fails is dropped, and the reason is stored in `problems`.

    Raises:
        DeviceError: the reference failed.
    """
    first, *_ = workers
    measured.update({name: _Measured() for name in workers})
    windows = list(zip(*(cases[sense] for sense in SENSES), strict=True))
    for number, window in enumerate([*windows[:_WARM_UP], *windows], start=-_WARM_UP):
        durations_ms = {}
        for name, worker in list(workers.items()):
            time.sleep(_REST_S)
            try:
                encoded = worker.run(dict(zip(SENSES, window, strict=True)))
            except DeviceError as error:
                if name == first:
                    raise
                problems[name] = str(error)
                del workers[name]
                continue
            durations_ms[name] = encoded.total_ms
            if number >= 0:
                measured[name].window_ms.append(encoded.total_ms)
                measured[name].encoder_ms.append(encoded.each_ms)
                measured[name].reference_ms.append(durations_ms[first])
                for sense in SENSES:
                    measured[name].answers[sense].append(encoded.embeddings[sense])
        progress("windows", max(number + 1, 0), len(windows))
    for name, worker in workers.items():
        measured[name].first_result_s = worker.first_result_s
        measured[name].peak_mb = worker.memory_mb()


def _row(
    candidate: Candidate, own: _Measured, reference: _Measured, peak: IntegerPeak, config: ImageBindConfig
) -> FrontierRow:
    p5, p50, p95 = np.percentile(np.array(own.reference_ms) / np.array(own.window_ms), [5, 50, 95])
    limit = requirement(candidate.gate)
    found = {
        sense: compare_embeddings(np.concatenate(own.answers[sense]), np.concatenate(reference.answers[sense]))
        for sense in SENSES
    }
    names = [f"window {number}" for number in range(1, len(own.window_ms) + 1)]
    encoder_ms = {
        sense: float(np.median([each[sense] for each in own.encoder_ms])) for sense in SENSES if all(own.encoder_ms)
    }
    return FrontierRow(
        name=candidate.name,
        window_ms=Percentiles(*(float(value) for value in np.percentile(own.window_ms, [50, 95, 99]))),
        times_faster=float(p50),
        times_faster_p5=float(p5),
        times_faster_p95=float(p95),
        min_cosine={sense: float(each.cosine.min()) for sense, each in found.items()},
        encoder_ms=encoder_ms or None,
        of_integer_peak={
            sense: flops(config.to_dict(), sense, candidate.file) / (ms * 1e6) / peak.gops
            for sense, ms in encoder_ms.items()
        }
        if encoder_ms and candidate.gate.startswith("int8")
        else None,
        first_result_s=own.first_result_s,
        peak_mb=own.peak_mb,
        gate=candidate.gate,
        exact=candidate.exact,
        passed=not any(embedding_failure(limit, each, names) for each in found.values()),
        exported=candidate.exported,
    )
