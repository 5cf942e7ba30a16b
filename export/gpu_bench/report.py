"""The matrix as Markdown and JSON files."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ovavel.eval.bench.report import Row
from ovavel.eval.bench.rows import EAGER
from ovavel.eval.bench.tables import device_lines_of
from ovavel.export.gpu_bench.matrix import MatrixReport
from ovavel.runtime.reporting.markdown import table_lines
from ovavel.runtime.system.files import atomic_write, make_folder

__all__ = ["matrix_markdown", "write_matrix"]

_NONE = "–"


def write_matrix(report: MatrixReport, folder: Path) -> tuple[Path, Path]:
    """Write Markdown and JSON files named after the device and the date; return both paths.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(folder)
    stem = f"{re.sub(r'[^a-z0-9]+', '-', report.device.lower()).strip('-')}-{report.date[:10]}"
    paths = folder / f"{stem}.md", folder / f"{stem}.json"
    atomic_write(paths[0], matrix_markdown(report).encode())
    atomic_write(paths[1], msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return paths


def matrix_markdown(report: MatrixReport) -> str:
    """Return a table of the measured rows, with notes and rules."""
    measured = [row for row in report.rows if not row.not_measured]
    eager = next((row for row in measured if row.name == EAGER), None)
    preparation = f", including {report.prepared_s:.0f} s for weights and bundle" if report.prepared_s else ""
    head = (
        *("row", "runs in", "window p50 / p90 / p99, ms", "× eager fp32", "offline, windows/s", "live cameras"),
        *(
            "GPU memory, MB",
            "energy, J/window",
            "floor, ms (reached)",
            "vision / audio, minimum cosine",
            "equal decisions",
        ),
        "gate",
    )
    lines = [
        f"# {report.device}, {report.date[:10]}",
        "",
        *(f"- {line}" for line in device_lines_of(report.machine, report.rates)),
        f"- {report.model}, {report.weights}, bundle {report.bundle_sha256[:12]}",
        f"- {report.took_s:.0f} s of {report.budget_s:.0f} s{preparation}; each row ran in its own process, so ratios "
        "are of medians, not of pairs",
        *(f"- {note}" for note in report.notes),
        *(["- PARTIAL: the run was interrupted"] if report.partial else []),
        "",
        *table_lines(head, (_cells(row, eager) for row in measured), right=range(2, len(head) - 1)),
        "",
    ]
    missing = [row for row in report.rows if row.not_measured]
    if missing:
        lines += ["Not measured:", "", *(f"- {row.name}: {row.not_measured}" for row in missing), ""]
    lines += [f"- {name}: building its plans took {took_s:.0f} s" for name, took_s in report.built_s.items()]
    lines += [f"- {row.name}: {note}" for row in measured for note in row.notes]
    return "\n".join([*lines, "", "Rules:", "", *(f"- **{name}**: {rule}." for name, rule in report.rules.items()), ""])


def _cells(row: Row, eager: Row | None) -> list[str]:
    window = row.single.stages["window"] if row.single else None
    slow = eager.single.stages["window"].p50 if eager and eager.single else None
    best = row.offline.best if row.offline else None
    energy_j = row.offline.energy_j if row.offline else None
    device_mb = row.memory.device_mb if row.memory else None
    gate = row.gate
    return [
        row.name,
        row.backend.provider if row.backend else _NONE,
        f"{window.p50:.2f} / {window.p90:.2f} / {window.p99:.2f}" if window else _NONE,
        f"{slow / window.p50:.2f}" if window and slow else _NONE,
        f"{best.windows_per_s:.0f} (batch {best.size})" if best else _NONE,
        f"{'≥ ' if row.live.at_most else ''}{row.live.cameras}" if row.live else _NONE,
        "unknown" if device_mb is None else f"{device_mb:.0f}",
        "unknown" if energy_j is None else f"{energy_j:.2f}",
        f"{row.floor.floor_ms:.2f} ({row.floor.reached:.0%})" if row.floor else "unknown",
        f"{gate.min_cosine['vision']:.6f} / {gate.min_cosine['audio']:.6f}" if gate else _NONE,
        f"{gate.decisions:.1%}" if gate else _NONE,
        ("passed" if gate.passed else f"NOT passed: {gate.failures[0]}") if gate else _NONE,
    ]
