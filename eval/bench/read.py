"""Reads an earlier report of the bench: what of it is compared."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ovavel.eval.bench.report import FORMAT
from ovavel.runtime.errors import InputError
from ovavel.runtime.system.paths import check_path
from ovavel.runtime.system.untrusted import read_json

__all__ = ["ReadRow", "Report", "read_report"]


class _Spread(msgspec.Struct):
    p50: float
    p99: float


class _Single(msgspec.Struct):
    stages: dict[str, _Spread]
    durations_ms: dict[str, list[float]]
    cpu_ms: list[float]
    yardstick_ms: list[float]
    yardstick_cpu_ms: list[float]


class _Best(msgspec.Struct):
    windows_per_s: float


class _Offline(msgspec.Struct):
    best: _Best


class _Live(msgspec.Struct):
    cameras: int


class _Memory(msgspec.Struct):
    host_mb: float


class _Backend(msgspec.Struct):
    device: str
    threads: int
    versions: dict[str, str]


class ReadRow(msgspec.Struct):
    """One row, of which no more is read than is compared."""

    name: str
    reference: bool
    backend: _Backend | None = None
    single: _Single | None = None
    offline: _Offline | None = None
    live: _Live | None = None
    memory: _Memory | None = None


class _Machine(msgspec.Struct):
    cpu: str
    cores: int
    gpus: list[str]
    versions: dict[str, str]
    cpu_features: list[str] | None = None  # older reports do not have them


class Report(msgspec.Struct):
    """What a comparison reads of a report's JSON."""

    format: int
    machine: _Machine
    media: str
    rows: list[ReadRow]


def read_report(path: Path) -> Report:
    """Read what `ovavel bench run --out` wrote: the folder, or the JSON file in it.

    Raises:
        InputError: it cannot be read, or holds no raw durations, or not one of each kind for every window.
    """
    check_path(path)
    if path.is_dir():
        path /= "bench.json"
    try:
        report = read_json(path.read_bytes(), Report)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(
            f"{path} is not a report of 'ovavel bench run' in format {FORMAT}: {error}. Measure again with this version"
        ) from error
    for row in report.rows:
        if row.single and not _whole(row.single):
            raise InputError(
                f"{path}: the row {row.name} does not have one duration, processor time and yardstick for each window; "
                "measure again"
            )
    return report


def _whole(single: _Single) -> bool:
    """Whether every window has all that is compared; the yardstick may be missing altogether."""
    n = len(single.durations_ms.get("window", []))
    yardsticks = {len(single.yardstick_ms), len(single.yardstick_cpu_ms)}
    return n > 0 and "window" in single.stages and len(single.cpu_ms) == n and yardsticks in ({0}, {n})
