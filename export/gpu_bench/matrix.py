"""Benchmark of every engine on one GPU, each in a separate process, so that failures and timeouts affect one row only.

Full-size random weights are created and exported first: they take the same time as the published ones, and nothing has
to be downloaded. The text encoder is small, since windows do not use it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec

from ovavel.eval.bench.machine import Machine, describe_machine
from ovavel.eval.bench.meters.rates import floor
from ovavel.eval.bench.report import BenchReport, Rates, Row
from ovavel.eval.bench.rows import RowSpec, own_rows, reference_rows
from ovavel.eval.bench.settings import Settings
from ovavel.eval.demo.assets import Assets
from ovavel.export.gpu_bench.prepared import PRECISIONS, Prepared
from ovavel.export.gpu_bench.process import Answer, in_process
from ovavel.export.gpu_bench.row import BATCHES
from ovavel.runtime.backends.tensorrt.library import LibraryName, load_library
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import ENGINE_PRECISIONS
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.system.hardware import device_name
from ovavel.runtime.system.progress import Progress

__all__ = ["Budget", "MatrixReport", "matrix_rows", "run_matrix"]

_ENGINES = ("onnxruntime", "tensorrt", "tensorrt-rtx")
_REFERENCES = (
    *("eager", "graph+fp16+cast", "compile+fp16+cast", "graph+bf16+cast", "compile", "graph"),
    *("bf16", "fp16"),
)
_BUILDING: tuple[LibraryName, ...] = get_args(LibraryName)
"""Backends that build plans first, which takes minutes."""
_MIN_TIME_S = 15.0
"""No job is started with less time left."""

_ENGINE_RULE = (
    f"those of TensorRT and TensorRT-RTX are built only for batches of {' and '.join(map(str, BATCHES))}, since each "
    "takes time to build; other numbers of windows are composed of these"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixReport:
    """All rows of one GPU."""

    device: str
    machine: Machine
    date: str
    """UTC, ISO 8601, to the second."""
    model: str
    weights: str
    """Description of the weights."""
    bundle_sha256: str
    budget_s: float
    prepared_s: float
    """Time to create or find weights and bundle; 0 if they were given."""
    took_s: float
    rates: Rates | None
    rows: list[Row]
    built_s: dict[str, float] = field(default_factory=dict)
    """Name of a row → time to build, load and verify its plans before the measurement."""
    rules: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    partial: bool = False
    """Whether the run was interrupted."""


def matrix_rows(weights: Path, head: Path | None, *, wanted: Sequence[str] = ()) -> list[RowSpec]:
    """Return PyTorch eager, engines without builds, TensorRT in fp16, PyTorch's other modes, then TensorRT's others.

    The most important rows come first; plans that take minutes to build come last, except the fastest.

    Args:
        weights: checkpoint of the bundle.
        head: checkpoint of its temporal head.
        wanted: substrings of names; rows that match none of them are left out.
    """
    eager, *others = reference_rows(_REFERENCES, (weights,), head)
    own = own_rows(_ENGINES, PRECISIONS)
    own.sort(key=lambda spec: ("fp16", "fp32", "bf16").index(str(spec.options["precision"])))
    without_build = [spec for spec in own if spec.backend not in _BUILDING]
    building = [spec for spec in own if spec.backend in _BUILDING]
    fastest = len(_BUILDING)
    specs = [eager, *without_build, *building[:fastest], *others, *building[fastest:]]
    return [spec for spec in specs if not wanted or any(part in spec.name for part in wanted)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long the matrix may take."""

    begin_s: float
    """When it began, on the monotonic clock."""
    prepared_s: float
    """How much of it preparing took."""
    total_s: float
    """For all of it."""
    row_s: float
    """For measuring one row."""
    build_s: float
    """For building the plans of one row."""


def run_matrix(
    prepared: Prepared,
    specs: Sequence[RowSpec],
    *,
    device: str,
    budget: Budget,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> MatrixReport:
    """Run each row in a process of its own until the budget's end.

    Plans are built by another process first, so that a slow build does not reduce the time for measuring.

    Args:
        prepared: bundle and weights to run.
        specs: the rows.
        device: "cuda", "cuda:N", or "cpu" to try the way.
        budget: how long it may take.
        settings: what to measure of a row.
        folder: for the files between the processes, and their cache: engines of throw-away weights do not outlive it.
        progress: called at each stage.
    """
    bundle = Bundle.open(prepared.bundle)
    rows: list[Row] = []
    built_s: dict[str, float] = {}
    rules: dict[str, str] = {}
    rates, partial, notes = None, False, [*prepared.missing]
    job = {"bundle": str(prepared.bundle), "device": device, "media": str(Assets.open().clip), "settings": settings}

    def run(kind: str, what: str, limit_s: float, spec: RowSpec | None = None) -> Answer:
        left_s = budget.total_s - (time.monotonic() - budget.begin_s)
        if left_s < _MIN_TIME_S:
            return Answer(why=f"the time budget of {budget.total_s:g} s was used up")
        progress(f"{what}; {left_s:.0f} s left")
        full_job = {**job, "kind": kind, "spec": spec and _plain(spec)}
        doing = "building its plans" if kind == "build" else "it"
        return in_process(full_job, folder, limit_s=min(limit_s, left_s), doing=doing)

    try:
        answer = run("rates", f"what {device} can do at best", budget.row_s)
        if answer.content:
            rates = msgspec.json.decode(answer.content, type=Rates)
        else:
            notes.append(f"rates not measured: {answer.why}")
        for number, spec in enumerate(specs, 1):
            if why := _impossible(spec, device):
                rows.append(Row(name=spec.name, reference=spec.reference, not_measured=why))
                continue
            what = f"{number} of {len(specs)}: {spec.name}"
            built = (
                run("build", f"{what}: building its plans", budget.build_s, spec) if spec.backend in _BUILDING else None
            )
            if built and built.content:
                built_s[spec.name] = round(msgspec.json.decode(built.content, type=float), 1)
            answer = built if built and not built.content else run("row", what, budget.row_s, spec)
            if not answer.content:
                rows.append(Row(name=spec.name, reference=spec.reference, not_measured=answer.why))
                continue
            report = msgspec.json.decode(answer.content, type=BenchReport)
            row = _with_floor(report.rows[0], bundle, rates)
            incomplete = [f"{answer.why}; the measurement is incomplete"] if answer.why else []
            rows.append(replace(row, notes=[*row.notes, *incomplete]))
            rules = {**report.rules, "single": f"{report.rules['single']}. Here each row runs alone"}
    except KeyboardInterrupt:
        partial = True
        measured = {row.name for row in rows}
        rows += [
            Row(name=spec.name, reference=spec.reference, not_measured="interrupted")
            for spec in specs
            if spec.name not in measured
        ]
    if any(spec.backend in _BUILDING for spec in specs):
        rules["engines"] = _ENGINE_RULE
    return MatrixReport(
        device=device_name("cuda:0" if device == "cuda" else device),
        machine=describe_machine(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=bundle.manifest.model.name,
        weights=prepared.description,
        bundle_sha256=bundle.sha256,
        budget_s=budget.total_s,
        prepared_s=round(budget.prepared_s, 1),
        took_s=round(time.monotonic() - budget.begin_s, 1),
        rates=rates,
        rows=rows,
        built_s=built_s,
        rules=rules,
        notes=notes,
        partial=partial,
    )


def _impossible(spec: RowSpec, device: str) -> str | None:
    """Return why a row can never run here, or None if it may."""
    building = next((name for name in _BUILDING if name == spec.backend), None)
    if building:
        try:
            library = load_library(building)
            if device != "cpu":
                library.check_capability(_compute_capability(device))
        except OvavelError as error:
            return str(error)
    if device == "cpu" and building:
        return f"{building} needs an NVIDIA GPU"
    precision = spec.options.get("precision")
    if device == "cpu" and precision and not spec.reference and precision not in ENGINE_PRECISIONS["onnxruntime-cpu"]:
        return f"ONNX Runtime does not run {precision} on the CPU"
    if device == "cpu" and spec.options.get("mode") == "graph":
        return "CUDA graphs need a GPU"
    return None


def _compute_capability(device: str) -> str:
    import torch

    return "{}.{}".format(*torch.cuda.get_device_capability(device))


def _with_floor(row: Row, bundle: Bundle, rates: Rates | None) -> Row:
    if rates is None or row.backend is None or row.single is None:
        return row
    medians = {stage: spread.p50 for stage, spread in row.single.stages.items()}
    return replace(row, floor=floor(bundle, row.backend, rates, medians))


def _plain(spec: RowSpec) -> dict[str, Any]:
    options = {name: str(value) if isinstance(value, Path) else value for name, value in spec.options.items()}
    return {"name": spec.name, "backend": spec.backend, "options": options, "reference": spec.reference}
