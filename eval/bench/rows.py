"""What is measured side by side: the bundle in several precisions and backends, and PyTorch in several modes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovavel.eval.bench.meters.memory import MemoryWatch
from ovavel.eval.bench.pipeline import Pipeline
from ovavel.eval.bench.report import Beside, Memory, Ratio, WarmUp
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import OvavelError, UsageError
from ovavel.runtime.types import Window
from ovavel.runtime.verification.open import open_compared

__all__ = ["EAGER", "OpenRow", "RowSpec", "compare_beside", "open_row", "own_rows", "reference_rows"]

EAGER = "PyTorch eager fp32"
"""The row that the others are compared with."""

_MODES = ("eager", "compile", "graph")
_PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    """What to open for a row."""

    name: str
    backend: str = "onnxruntime"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `open_compared`, beside device and threads."""
    reference: bool = False
    beside: Path | None = None
    """Folder of another bundle, to be measured beside that of the run."""

    def of(self, bundle: Bundle) -> Bundle:
        """The bundle to open in a run of `bundle`."""
        return Bundle.open(self.beside) if self.beside else bundle


@dataclass(slots=True, kw_only=True)
class OpenRow:
    """A row on its way: opened and warm, or the reason why not."""

    spec: RowSpec
    pipeline: Pipeline | None = None
    not_measured: str | None = None
    load_s: float | None = None
    warm_up: WarmUp | None = None
    memory: Memory | None = None


def own_rows(backends: Sequence[str], precisions: Sequence[str], *, beside: Bundle | None = None) -> list[RowSpec]:
    """One row for each backend and precision; without precisions, each backend runs what the bundle says.

    With `beside`, the rows are of that bundle and carry its name.

    Raises:
        UsageError: one is named twice.
    """
    for named in (backends, precisions):
        if len(set(named)) < len(named):
            raise UsageError(f"{' '.join(named)} names one of them twice; name each once")
    wanted: list[str | None] = [*precisions] or [None]
    return [
        RowSpec(
            name=" ".join(filter(None, (f"{beside.path.name}:" if beside else None, backend, precision))),
            backend=backend,
            options={"precision": precision} if precision else {},
            beside=beside.path if beside else None,
        )
        for backend in backends
        for precision in wanted
    ]


def reference_rows(names: Sequence[str], weights: Sequence[Path], head: Path | None) -> list[RowSpec]:
    """Rows of PyTorch: words joined by +, one of eager, compile and graph, one of fp32, bf16 and fp16, and cast.

    "compile" is `torch.compile`, "graph" a CUDA graph; bf16 and fp16 are autocast, or with "cast" weights of that type.

    Raises:
        UsageError: a name is none of these, or two mean the same.
    """
    specs: dict[str, RowSpec] = {}
    for name in names:
        words = name.split("+")
        modes, precisions = ([word for word in words if word in known] for known in (_MODES, _PRECISIONS))
        rest = [word for word in words if word not in (*_MODES, *_PRECISIONS)]
        if len(modes) > 1 or len(precisions) > 1 or rest not in ([], ["cast"]) or (rest and not precisions):
            raise UsageError(
                f"there is no reference {name!r}; join with +, for instance compile+bf16, at most one of "
                f"{', '.join(_MODES)}, one of {', '.join(_PRECISIONS)}, and cast after bf16 or fp16"
            )
        mode, precision = (modes or ["eager"])[0], (precisions or ["fp32"])[0]
        kind = "" if precision == "fp32" else " weights" if rest else " autocast"
        options = {
            "weights": weights,
            "head": head,
            "precision": precision,
            "mode": mode,
            "cast_weights": bool(rest),
        }
        spec = RowSpec(name=f"PyTorch {mode} {precision}{kind}", backend="torch", options=options, reference=True)
        if spec.name in specs:
            raise UsageError(f"the references {' '.join(names)} name {spec.name} twice; name each once")
        specs[spec.name] = spec
    return list(specs.values())


def open_row(
    spec: RowSpec,
    bundle: Bundle,
    windows: Sequence[Window],
    *,
    device: str,
    threads: int | None,
    memory: MemoryWatch,
    warm_up_s: float,
    required: bool,
) -> OpenRow:
    """Open a backend on `bundle` and warm it up; where a row that is not `required` is unavailable, it says why.

    Raises:
        OvavelError: the backend of a `required` row cannot be opened.
    """
    memory.begin()
    begin_s = time.perf_counter()
    pipeline = None
    try:
        options = dict(spec.options)
        pipeline = Pipeline(bundle, open_compared(bundle, name=spec.backend, device=device, threads=threads, **options))
        load_s = time.perf_counter() - begin_s
        warm_up = pipeline.warm_up(windows, limit_s=warm_up_s)
    except BaseException as error:
        if pipeline:
            pipeline.close()
        if required or not isinstance(error, OvavelError):
            raise
        return OpenRow(spec=spec, not_measured=str(error))
    return OpenRow(
        spec=spec,
        pipeline=pipeline,
        load_s=round(load_s, 3),
        warm_up=warm_up,
        memory=memory.end(pipeline.backend.info.device),
    )


def compare_beside(row: OpenRow, first: OpenRow) -> Beside:
    """Compare a row of another bundle with the first row, which is of the run's own bundle."""
    pipeline = row.pipeline
    assert pipeline is not None
    times = [each.durations_ms.get("window", []) for each in (pipeline, first.pipeline) if each]
    memory = [each.memory.host_mb if each.memory else 0.0 for each in (row, first)]
    return Beside(
        model=pipeline.bundle.manifest.model.name,
        bundle_sha256=pipeline.bundle.sha256,
        window=Ratio.of(*times) if len(times) == 2 and all(times) else None,
        memory=round(memory[0] / memory[1], 2) if all(memory) else None,
    )
