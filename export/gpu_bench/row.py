"""Process of one row of the matrix: `python -m ovavel.export.gpu_bench.row JOB ANSWER`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import msgspec

from ovavel.eval.bench import RowSpec, Settings, run_bench
from ovavel.eval.bench.meters.rates import measure_rates
from ovavel.runtime.backends.tensorrt.library import LibraryName
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.hardware import physical_cores
from ovavel.runtime.system.interrupt import terminated_as_interrupted
from ovavel.runtime.verification.open import open_compared

__all__ = ["BATCHES", "main"]

BATCHES = (1, 8)
"""Fewer batch sizes than by default, since engines take time to build for each."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Description of a measurement."""

    bundle: str
    device: str
    media: str
    settings: Settings
    kind: Literal["rates", "build", "row"]
    """The device's peak rates, the seconds that the backend takes to open the first time, or a row."""
    spec: RowSpec | None = None
    """The row; None for `rates`."""


def main(job_json: str, answer: str) -> int:
    """Measure and write the answer; an error is reported as one line on standard error.

    After SIGTERM the answer holds the measurements so far, if any.
    """
    job = msgspec.json.decode(job_json, type=Job)
    spec = job.spec and _with_batches(job.spec)
    try:
        if job.kind == "rates" or spec is None:
            device = "cuda:0" if job.device == "cuda" else job.device
            found: object = measure_rates(device, physical_cores(), frozenset({"torch"}))
        elif job.kind == "build":
            bundle, begin_s = Bundle.open(job.bundle), time.perf_counter()
            backend = open_compared(bundle, name=spec.backend, device=job.device, **spec.options)
            backend.warm_up()  # caches what it compiles
            backend.close()
            found = time.perf_counter() - begin_s
        else:
            bundle = Bundle.open(job.bundle)
            found = run_bench(bundle, device=job.device, media=job.media, rows=[spec], settings=job.settings)
    except OvavelError as error:
        print(error, file=sys.stderr)
        return 1
    atomic_write(Path(answer), msgspec.json.encode(found))
    return 0


def _with_batches(spec: RowSpec) -> RowSpec:
    if spec.backend not in get_args(LibraryName):
        return spec
    return replace(spec, options={**spec.options, "options": BuildOptions(batches=BATCHES)})


if __name__ == "__main__":
    with terminated_as_interrupted():
        raise SystemExit(main(*sys.argv[1:]))
