"""The frontier as a Markdown table, and as a page with a chart."""

from __future__ import annotations

import math

from ovavel.export.cpu_bench.frontier import Frontier, FrontierRow
from ovavel.runtime.reporting.charts import ticks
from ovavel.runtime.reporting.markdown import table_lines
from ovavel.runtime.reporting.page import page, section, table, text
from ovavel.runtime.reporting.palette import colour

__all__ = ["html", "markdown"]

_HEAD = (
    "candidate",
    "window, ms: p50 / p95",
    "times faster than eager, pairs (p5–p95)",
    "minimum cosine: vision, audio",
    "gate for embeddings",
    "of the integer peak: vision, audio",
    "first result, s",
    "peak memory",
)
_OPERATORS_HEAD = ("encoder", "operator", "ms a window", "share")
_SHOWN_SHARE = 0.01
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 400, 64, 48, 20
_WORST, _BEST = 0, 8
"""Range of the chart: cosines from 1 - 10 ** 0 to 1 - 10 ** -8."""


def markdown(found: Frontier) -> str:
    """Return the table with a description of machine and model."""
    rows = [_cells(row) for row in found.rows]
    for cells in rows:
        if cells[0] == found.default:
            cells[0] = f"**{cells[0]}**"
    title = f"# {_title(found)}"
    lines = [title, "", _measured_on(found), "", *table_lines(_HEAD, rows), "", _default(found), "", _peak(found)]
    if found.operators:
        lines += ["", _operators(found), "", *table_lines(_OPERATORS_HEAD, _operator_cells(found))]
    return "\n".join(lines) + "\n"


def html(found: Frontier) -> bytes:
    """Return a self-contained page."""
    bold = [number for number, row in enumerate(found.rows) if row.name == found.default]
    return page(
        _title(found),
        f"<p>{text(_measured_on(found))}</p>",
        section("All candidates, measured in one run", table(_HEAD, map(_cells, found.rows), bold=bold)),
        f"<p>{text(_default(found))}</p>",
        f"<p>{text(_peak(found))}</p>",
        section(_operators(found), table(_OPERATORS_HEAD, _operator_cells(found))) if found.operators else "",
        section("The frontier", _chart(found)),
    )


def _title(found: Frontier) -> str:
    features = ", ".join(found.machine.cpu_features) or "no relevant features, or hidden ones"
    return f"Accuracy versus speed on a CPU with {features}"


def _measured_on(found: Frontier) -> str:
    machine = found.machine
    libraries = ", ".join(
        f"{name} {machine.versions[name]}" for name in ("torch", "onnxruntime", "openvino") if name in machine.versions
    )
    return (
        f"{found.model}, {found.weights}: {found.windows} windows of one frame and one second of sound, vision and "
        f"audio encoder, {found.threads} threads; {machine.cpu}, {machine.memory_gb} GB, {machine.system}, Python "
        f"{machine.python}, {libraries}; {machine.date[:10]}."
    )


def _default(found: Frontier) -> str:
    if found.default is None:
        return "No candidate for bundles passes its gate."
    return (
        f"The fastest candidate for bundles that passes its gate and is exact on this kind of CPU: {found.default}. "
        "Ratios differ on other kinds of CPU."
    )


def _peak(found: Frontier) -> str:
    peak = found.integer_peak
    return (
        f"Integer peak, the most that MatMulInteger reaches here on large square matrices: {peak.gops:.0f} GOP/s with "
        f"{found.threads} threads, {peak.one_thread_gops:.0f} with one."
    )


def _operators(found: Frontier) -> str:
    return f"Time by operator, {found.default}"


def _operator_cells(found: Frontier) -> list[list[str]]:
    cells = []
    for sense, times in found.operators.items():
        total = sum(times.values())
        shown = {name: ms for name, ms in times.items() if ms >= _SHOWN_SHARE * total}
        shown["all others"] = total - sum(shown.values())
        cells += [[sense, name, f"{ms:.1f}", f"{ms / total:.1%}"] for name, ms in shown.items()]
    return cells


def _cells(row: FrontierRow) -> list[str]:
    if row.window_ms is None or row.min_cosine is None:
        return [row.name, f"not measured: {row.not_measured}", *[""] * (len(_HEAD) - 2)]
    return [
        row.name,
        f"{row.window_ms.p50:.0f} / {row.window_ms.p95:.0f}",
        f"{row.times_faster:.2f} ({row.times_faster_p5:.2f}–{row.times_faster_p95:.2f})",
        ", ".join(_cosine(value) for value in row.min_cosine.values()),
        f"{row.gate}: {'passed' if row.passed else 'failed'}{'' if row.exact else ', saturates on this CPU'}",
        ", ".join(f"{share:.0%}" for share in (row.of_integer_peak or {}).values()),
        f"{row.first_result_s:.1f}",
        f"{row.peak_mb / 1024:.2f} GiB",
    ]


def _cosine(value: float) -> str:
    """Format with enough digits to distinguish it from 1."""
    return f"{value:.5f}" if value < 0.9999 else f"1 − {1 - value:.0e}"


def _chart(found: Frontier) -> str:
    """Draw the speed-up (upwards) over the nines of the cosine (to the right)."""
    rows = [row for row in found.rows if row.window_ms and row.min_cosine]
    fastest = max(row.times_faster for row in rows) * 1.1
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" style="max-width:{_WIDTH}px;font:12px system-ui">']
    for nines in range(_WORST, _BEST + 1):
        x = _x(nines)
        name = "0" if nines == 0 else f"1−10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[nines]}"
        parts.append(
            f'<path d="M{x:.0f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="currentColor" opacity=".15"/>'
            f'<text x="{x:.0f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle" fill="currentColor">{name}</text>'
        )
    for times in (tick for tick in ticks(0, fastest) if tick <= fastest):
        y = _y(times, fastest)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.0f}" x2="{_WIDTH - 10}" y2="{y:.0f}" stroke="currentColor" opacity=".15"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end" fill="currentColor">{times:g} ×</text>'
        )
    parts.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle" fill="currentColor">'
        "minimum cosine with PyTorch "
        "eager fp32 (filled: passes its gate); upwards: times faster</text>"
    )
    key = []
    for number, row in enumerate(rows, start=1):
        assert row.min_cosine is not None
        away = max(1 - min(row.min_cosine.values()), 10.0**-_BEST)
        x, y = _x(-math.log10(away)), _y(row.times_faster, fastest)
        shade = colour(number)
        parts.append(
            f'<g><title>{text(row.name)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="7" stroke="{shade}" '
            f'stroke-width="2" fill="{shade if row.passed else "none"}"/>'
            f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="currentColor">{number}</text></g>'
        )
        key.append(f"<li>{text(row.name)}</li>")
    return "".join([*parts, "</svg><ol>", *key, "</ol>"])


def _x(nines: float) -> float:
    return _LEFT + (nines - _WORST) / (_BEST - _WORST) * (_WIDTH - _LEFT - 40)


def _y(times: float, fastest: float) -> float:
    return _HEIGHT - _BOTTOM - times / fastest * (_HEIGHT - _BOTTOM - _TOP)
