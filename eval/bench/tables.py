"""Benchmark report as tables: on the terminal, in Markdown, and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ovavel.eval.bench.compare import LEAST_WINDOWS
from ovavel.eval.bench.machine import Machine
from ovavel.eval.bench.meters.cost import ENCODERS
from ovavel.eval.bench.report import STAGES, BenchReport, Beside, Rates, Row
from ovavel.eval.bench.rows import EAGER
from ovavel.runtime.reporting.markdown import table_lines
from ovavel.runtime.verification.gates import gate_text

__all__ = ["device_lines", "device_lines_of", "grids", "markdown", "print_report"]

_NONE = "–"
_SWINGS = 0.1
"""Change of speed within a run that is more than its noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One table."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str]
    """Notes below the table."""


def print_report(report: BenchReport, console: Console) -> None:
    """Print the whole report."""
    for line in device_lines(report):
        console.print(line, markup=False)
    for grid in grids(report):
        table = Table(title=escape(grid.title))
        for number, title in enumerate(grid.head):
            table.add_column(escape(title), justify="right" if number else "left", overflow="fold")
        for row in grid.rows:
            table.add_row(*map(escape, row))
        console.print(table)
        for note in grid.notes:
            console.print(note, markup=False)


def markdown(report: BenchReport) -> str:
    """Format the whole report in Markdown."""
    parts = [f"# {report.model}, {report.machine.date[:10]}", *(f"- {line}" for line in device_lines(report)), ""]
    for grid in grids(report):
        numbers = range(1, len(grid.head))
        parts += [f"## {grid.title}", "", *table_lines(grid.head, grid.rows, right=numbers)]
        parts += ["", *(f"{note}\n" for note in grid.notes)]
    return "\n".join([*parts, "## Rules", "", *(f"- **{name}**: {rule}." for name, rule in report.rules.items()), ""])


def device_lines(report: BenchReport) -> Iterator[str]:
    """Describe the bundle, the media and the machine."""
    yield from device_lines_of(report.machine, report.rates)
    yield f"{report.model}, bundle {report.bundle_sha256[:12]}; windows of {report.media}; {report.machine.date}"
    if report.partial:
        yield "PARTIAL: the run was interrupted, and these are the figures until then"


def device_lines_of(machine: Machine, rates: Rates | None) -> Iterator[str]:
    """Describe the machine, its libraries, and its best rates."""
    features = ", ".join(machine.cpu_features) or "no features that matter"
    hardware = f"{machine.cpu} ({features}), {machine.cores} cores, {machine.memory_gb} GB"
    yield f"{hardware}; {machine.cpu_clock}; {machine.system}"
    yield from machine.gpus
    yield f"Python {machine.python}, " + ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    if rates:
        products = ", ".join(
            f"{precision} {rate / 1e12:.2f} TFLOP/s ({rates.by[precision]})"
            for precision, rate in rates.flops_per_s.items()
        )
        memory = f"memory {rates.bytes_per_s / 1e9:.0f} GB/s ({rates.by.get('memory', 'unknown')})"
        yield f"{rates.device} at best, measured in this run: {memory}, {products or 'no matrix product'}"


def grids(report: BenchReport) -> Iterator[Grid]:
    """Yield the tables for which the report has figures."""
    measured = [row for row in report.rows if not row.not_measured]
    yield _speed(report)
    yield _stages(report, measured)
    yield _cost(report)
    if any(row.gate for row in measured):
        yield _parity(measured)
    yield _what_ran(report)
    for row in measured:
        if row.live:
            yield _live(row)


def _speed(report: BenchReport) -> Grid:
    rows = []
    for row in report.rows:
        window = row.single.stages["window"] if row.single else None
        ratio = (row.single.ratios or {}).get("window") if row.single else None
        sound = row.capture.sound_ms if row.capture else None
        best = row.offline.best if row.offline else None
        rows.append(
            (
                row.name,
                "not measured"
                if row.not_measured
                else f"{window.p50:.1f} / {window.p90:.1f} / {window.p99:.1f}"
                if window
                else _NONE,
                f"{ratio.of_medians:.2f} ({ratio.p5:.2f}–{ratio.p95:.2f})" if ratio else _NONE,
                f"{best.windows_per_s:.1f} (batch {best.size})" if best else _NONE,
                _cameras(row),
                f"{sound.p50:.0f} / {sound.p99:.0f}" if sound else _NONE,
            )
        )
    head = (
        *("row", "single stream, ms\np50 / p90 / p99", f"times faster than\n{EAGER}", "offline\nwindows/s"),
        *("live\ncameras", "capture, ms\np50 / p99"),
    )
    notes = [f"{row.name}: not measured: {row.not_measured}" for row in report.rows if row.not_measured]
    notes += [f"{row.name}: {note}" for row in report.rows for note in row.notes]
    notes += [_beside(row, row.beside, report) for row in report.rows if row.beside]
    if any(row.capture for row in report.rows):
        notes.append("capture: from a window's last sample at the camera to its decision, through the network")
    if any(row.single and row.single.ratios for row in report.rows):
        notes.append("times faster: of the medians, and the 5th to 95th percentile of the pairs")
    return Grid(title=f"Scenarios, {report.windows} windows in single stream", head=head, rows=rows, notes=notes)


def _beside(row: Row, beside: Beside, report: BenchReport) -> str:
    """Compare a row of another bundle with the first one."""
    parts = []
    if beside.window:
        parts.append(
            f"a window takes {beside.window.of_medians:.2f} times as long "
            f"({beside.window.p5:.2f}–{beside.window.p95:.2f} of the pairs)"
        )
    if beside.memory:
        parts.append(f"memory is {beside.memory:.2f} times as much (the first row's holds the process as well)")
    said = ", ".join(parts) or "nothing was measured of both"
    return f"{row.name}, {beside.model}, against {report.rows[0].name}, {report.model}: {said}"


def _cost(report: BenchReport) -> Grid:
    rows = []
    for row in report.rows:
        if row.not_measured:
            continue
        device_mb = row.memory.device_mb if row.memory else None
        energy_j = row.offline.energy_j if row.offline else None
        rows.append(
            (
                row.name,
                f"{row.memory.host_mb:.0f}" if row.memory else _NONE,
                "unknown" if device_mb is None else f"{device_mb:.0f}",
                "unknown" if energy_j is None else f"{energy_j:.2f}",
                f"{row.floor.weight_bytes / 1e6:.0f} MB, {row.floor.flops / 1e9:.1f} GFLOP" if row.floor else "unknown",
                f"{row.floor.floor_ms:.2f}, of it {row.floor.reached:.0%}" if row.floor else "unknown",
            )
        )
    head = (
        "row",
        "memory, MB",
        "GPU memory, MB",
        "energy, J\na window",
        "weights, operations",
        "floor, ms,\nand reached",
    )
    return Grid(title="What it takes", head=head, rows=rows, notes=[])


def _cameras(row: Row) -> str:
    if not row.live:
        return _NONE
    return f"{'≥ ' if row.live.at_most else ''}{row.live.cameras} ({row.live.deadline_ms:g} ms)"


def _stages(report: BenchReport, measured: Sequence[Row]) -> Grid:
    shown = [(row, row.single) for row in measured if row.single]
    rows = []
    for stage in STAGES:
        cells = []
        for _, single in shown:
            spread = single.stages.get(stage)
            cells.append(f"{spread.p50:.2f} / {spread.p90:.2f} / {spread.p99:.2f}" if spread else _NONE)
        if any(cell != _NONE for cell in cells):
            rows.append((stage, *cells))
    return Grid(
        title="Milliseconds a window, by stage: p50 / p90 / p99",
        head=("stage", *(row.name for row, _ in shown)),
        rows=rows,
        notes=[
            f"resident memory: at most {report.peak_memory_mb:.0f} MB with the first row alone",
            *(
                f"{row.name}: {_drift_note(single.drift)}"
                for row, single in shown
                if len(single.durations_ms["window"]) >= LEAST_WINDOWS
            ),
        ],
    )


def _drift_note(drift: float) -> str:
    """Describe how the speed changed after the warm-up."""
    drifted = f"while it was timed, the median of the second half was {drift:+.0%} against the first"
    if abs(drift) < _SWINGS:
        return drifted
    return f"{drifted}: its speed changed after the warm-up, because of other programs or clocks; run it again"


def _parity(measured: Sequence[Row]) -> Grid:
    rows = []
    for row in measured:
        if row.gate:
            least = [f"{row.gate.min_cosine[graph]:.7f}" for graph in ENCODERS]
            verdict = "passed" if row.gate.passed else row.gate.failures[0]
            rows.append((row.name, *least, f"{row.gate.decisions:.2%}", verdict))
    head = ("row", "vision, min cosine", "audio, min cosine", "same decision", "gate")
    return Grid(title=f"Parity with {EAGER}", head=head, rows=rows, notes=[])


def _what_ran(report: BenchReport) -> Grid:
    rows = []
    for row in report.rows:
        if row.backend is None:
            continue
        precision = "/".join(dict.fromkeys(row.backend.precision.values()))
        versions = ", ".join(f"{name} {version}" for name, version in row.backend.versions.items())
        warm = row.warm_up
        rows.append(
            (
                row.name,
                f"{row.backend.provider}, {versions}",
                precision,
                _verified(row),
                f"{row.backend.device}, {row.backend.threads} thread{'s' * (row.backend.threads != 1)}",
                f"{row.load_s:.1f}" if row.load_s is not None else _NONE,
                f"{warm.windows} windows, {warm.seconds:.1f} s, {'steady at its end' if warm.steady else 'NOT steady'}"
                if warm
                else _NONE,
                row.clocks or "unknown",
            )
        )
    head = ("row", "runs in", "precision", "parity", "on", "loading, s", "warm-up", "GPU under load")
    return Grid(title="What ran", head=head, rows=rows, notes=[f"warm-up: {report.rules['warm-up']}"])


def _verified(row: Row) -> str:
    """Describe the comparison with PyTorch that verifies a row, in the words of `live`."""
    gate = row.gate or row.known_gate
    if row.reference:
        return _NONE
    here = row.gate is not None or row.known_gate_checked_here
    return gate_text(gate, here=here) if gate else f"{gate_text(None, here=False)}: no comparison with PyTorch is known"


def _live(row: Row) -> Grid:
    assert row.live is not None
    rows = [
        (
            str(trial.cameras),
            f"{trial.latency_ms.p50:.0f} / {trial.latency_ms.p90:.0f} / {trial.latency_ms.p99:.0f}",
            f"{trial.missed} of {trial.windows}",
            "yes" if trial.caught_up else "no",
            str(trial.largest_batch),
            "yes" if trial.passed else "no",
        )
        for trial in row.live.trials
    ]
    head = ("cameras", "latency p50 / p90 / p99, ms", "missed", "caught up", "largest batch", "passed")
    title = f"Live, {row.name}: deadline {row.live.deadline_ms:g} ms, {row.live.trial_s:g} s a trial"
    return Grid(title=title, head=head, rows=rows, notes=[])
