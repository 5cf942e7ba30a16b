"""Every engine on one GPU, each in a process of its own: what one row breaks, or takes too long for, no other feels.

Full-size random weights are made and exported first: the arithmetic is that of the published ones, and nothing has to
be fetched. Text has no part in a window, so its encoder is small.
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
"""Backends that first build plans, which takes minutes."""
_LEAST_S = 15.0
"""Nothing is begun with less time left."""

_ENGINE_RULE = (
    f"TensorRT's and TensorRT-RTX's are built for batches of {' and '.join(map(str, BATCHES))} alone, since each takes "
    "its share of the time to build; other numbers of windows are put together of these"
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
    """What they are, in words."""
    bundle_sha256: str
    budget_s: float
    prepared_s: float
    """How long weights and bundle took to make or to find again; 0 where they were given."""
    took_s: float
    rates: Rates | None
    rows: list[Row]
    built_s: dict[str, float] = field(default_factory=dict)
    """Name of a row → how long its plans took to build, to load and to compare with PyTorch, before it was measured."""
    rules: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    partial: bool = False
    """Whether it was interrupted."""


def matrix_rows(weights: Path, head: Path | None, *, wanted: Sequence[str] = ()) -> list[RowSpec]:
    """PyTorch eager, the engines that start at once, TensorRT in fp16, PyTorch's other modes, TensorRT in the rest.

    What matters most is measured first, and plans that take minutes to build, but for the fastest, come last.

    Args:
        weights: checkpoint of the bundle.
        head: checkpoint of its temporal head.
        wanted: parts of names; rows whose name holds none of them are left out.
    """
    eager, *others = reference_rows(_REFERENCES, weights, head)
    own = own_rows(_ENGINES, PRECISIONS)
    own.sort(key=lambda spec: ("fp16", "fp32", "bf16").index(str(spec.options["precision"])))
    at_once = [spec for spec in own if spec.backend not in _BUILDING]
    building = [spec for spec in own if spec.backend in _BUILDING]
    fastest = len(_BUILDING)
    specs = [eager, *at_once, *building[:fastest], *others, *building[fastest:]]
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

    Plans are built by another process before, so that a slow build takes nothing from the time for measuring.

    Args:
        prepared: what to run.
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

    def ask(kind: str, what: str, most_s: float, spec: RowSpec | None = None) -> Answer:
        left_s = budget.total_s - (time.monotonic() - budget.begin_s)
        if left_s < _LEAST_S:
            return Answer(why=f"the time budget of {budget.total_s:g} s was used up")
        progress(f"{what}; {left_s:.0f} s left")
        asked = {**job, "kind": kind, "spec": spec and _plain(spec)}
        doing = "building its plans" if kind == "build" else "it"
        return in_process(asked, folder, limit_s=min(most_s, left_s), doing=doing)

    try:
        answer = ask("rates", f"what {device} can do at best", budget.row_s)
        if answer.wrote:
            rates = msgspec.json.decode(answer.wrote, type=Rates)
        else:
            notes.append(f"rates not measured: {answer.why}")
        for number, spec in enumerate(specs, 1):
            if why := _impossible(spec, device):
                rows.append(Row(name=spec.name, reference=spec.reference, not_measured=why))
                continue
            what = f"{number} of {len(specs)}: {spec.name}"
            built = (
                ask("build", f"{what}: building its plans", budget.build_s, spec) if spec.backend in _BUILDING else None
            )
            if built and built.wrote:
                built_s[spec.name] = round(msgspec.json.decode(built.wrote, type=float), 1)
            answer = built if built and not built.wrote else ask("row", what, budget.row_s, spec)
            if not answer.wrote:
                rows.append(Row(name=spec.name, reference=spec.reference, not_measured=answer.why))
                continue
            report = msgspec.json.decode(answer.wrote, type=BenchReport)
            row = _with_floor(report.rows[0], bundle, rates)
            cut = [f"{answer.why}; not all of it was measured"] if answer.why else []
            rows.append(replace(row, notes=[*row.notes, *cut]))
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
    """Why a row cannot run here however much time there is; None if it may."""
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
        return f"ONNX Runtime on the CPU does not run {precision}"
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
