"""Every engine on one GPU, each in a process of its own: what one row breaks, or takes too long for, no other feels.

Full-size random weights are made and exported first: the arithmetic is that of the published ones, and nothing has to
be fetched. Text has no part in a window, so its encoder is small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
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
from ovavel.export.gpu_bench.process import Answer, in_process
from ovavel.export.gpu_bench.row import BATCHES
from ovavel.runtime.backends.tensorrt.library import LibraryName, load_library
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.precision import ENGINE_PRECISIONS, Precision
from ovavel.runtime.errors import OvavelError, PrecisionError
from ovavel.runtime.system.files import atomic_write, make_folder
from ovavel.runtime.system.hardware import device_name
from ovavel.runtime.system.progress import Progress, prefixed
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.models.imagebind.model import ImageBindConfig

__all__ = ["Budget", "MatrixReport", "Prepared", "matrix_rows", "prepare", "run_matrix"]

_ENGINES = ("onnxruntime", "tensorrt", "tensorrt-rtx")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
_REFERENCES = (
    *("eager", "graph+fp16+cast", "compile+fp16+cast", "graph+bf16+cast", "compile", "graph"),
    *("bf16", "fp16"),
)
_NAMES = tuple(f"event {number}" for number in range(1, 30))
_BUILDING: tuple[LibraryName, ...] = get_args(LibraryName)
"""Backends that first build plans, which takes minutes."""
_LEAST_S = 15.0
"""Nothing is begun with less time left."""

_ENGINE_RULE = (
    f"TensorRT's and TensorRT-RTX's are built for batches of {' and '.join(map(str, BATCHES))} alone, since each takes "
    "its share of the time to build; other numbers of windows are put together of these"
)

_MISSING = "missing.json"


class _Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a bundle, so that it is not exported in vain again."""

    bundle_sha256: str
    """Of its manifest."""
    why: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the rows run."""

    bundle: Path
    weights: Path
    head: Path | None
    description: str
    """What weights these are, in words."""
    missing: tuple[str, ...] = ()
    """Why the bundle lacks a precision."""


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
    own = own_rows(_ENGINES, _PRECISIONS)
    own.sort(key=lambda spec: ("fp16", "fp32", "bf16").index(str(spec.options["precision"])))
    at_once = [spec for spec in own if spec.backend not in _BUILDING]
    building = [spec for spec in own if spec.backend in _BUILDING]
    fastest = len(_BUILDING)
    specs = [eager, *at_once, *building[:fastest], *others, *building[fastest:]]
    return [spec for spec in specs if not wanted or any(part in spec.name for part in wanted)]


def prepare(folder: Path, config: ImageBindConfig, progress: Progress) -> Prepared:
    """Make random weights of the size `config`, a random head and their bundle in `folder`.

    What an earlier call left there is used again if it is whole and of the same making, and replaced otherwise.

    Raises:
        UsageError: something else is in the bundle's place.
        PrecisionError: not even fp32 could be exported.
        OutputError: the disk is full.
    """
    import torch

    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.heads.temporal import TemporalHead

    make_folder(folder)
    weights, head, place = (
        folder / name for name in ("random.safetensors", "random-head.safetensors", "random-bundle")
    )
    prepared = Prepared(bundle=place, weights=weights, head=head, description="random weights")
    progress("looking for what is there")
    known = _known_missing(prepared)
    if _is_there(prepared, config, known):
        return replace(prepared, missing=tuple(known.values()))
    progress("making random weights")
    _random_weights(weights, config)
    torch.manual_seed(0)
    TemporalHead(1, config.embedding_size).save(head)
    missing: dict[str, str] = {}
    precisions = _PRECISIONS
    while True:
        try:
            write_bundle(
                BundleContents(weights, _NAMES, head=head, config=config, licence="random weights"),
                place,
                precisions=precisions,
                overwrite=place.exists(),
                progress=prefixed(progress, "exporting: "),
            )
            noted = _Missing(bundle_sha256=_hash(place), why=missing)
            atomic_write(folder / _MISSING, msgspec.json.encode(noted))
            return replace(prepared, missing=tuple(missing.values()))
        except PrecisionError as error:
            if error.precision == "fp32":
                raise
            precisions = tuple(each for each in precisions if each != error.precision)
            missing[error.precision] = f"{error.precision} could not be exported: {error.loss}"


def _hash(bundle: Path) -> str:
    return file_entry(bundle / "manifest.json").sha256


def _known_missing(wanted: Prepared) -> dict[str, str]:
    """Which precisions could not be exported when the bundle that is there was made, and why."""
    try:
        noted = read_json((wanted.bundle.parent / _MISSING).read_bytes(), _Missing)
        return noted.why if noted.bundle_sha256 == _hash(wanted.bundle) else {}
    except (OvavelError, OSError, ValueError):
        return {}


def _is_there(wanted: Prepared, config: ImageBindConfig, missing: Collection[str] = ()) -> bool:
    """Whether a whole bundle in all precisions but those `missing` is there, of weights and head of this version."""
    from importlib.metadata import version

    try:
        manifest = Bundle.open(wanted.bundle).manifest
        hashes = [file_entry(path).sha256 for path in (wanted.weights, wanted.head) if path]
        same = ImageBindConfig.from_dict(manifest.model.config) == config
    except (OvavelError, OSError):
        return False
    return (
        same
        and manifest.ovavel_version == version("ovavel")
        and hashes == [manifest.model.weights_sha256, manifest.model.head_sha256]
        and {*_PRECISIONS} - {*missing} <= manifest.graphs["vision"].keys() & manifest.graphs["audio"].keys()
    )


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


def _random_weights(path: Path, config: ImageBindConfig) -> Path:
    """Write a checkpoint with the published names, of the scale that trained weights start from."""
    import torch

    from ovavel.training.models.checkpoint import write_checkpoint
    from ovavel.training.models.imagebind.model import published_entries

    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_entries(config).items():
        if name.endswith(".mask"):
            continue  # optional: causal attention makes it again
        if len(shape) < 2:
            state[name] = torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
        else:
            state[name] = torch.randn(shape, generator=random) / math.sqrt(math.prod(shape[1:]))
    write_checkpoint(path, state, {})
    return path
