"""Result of `ovavel eval economy` as data, charts and a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from ovavel.eval.economy.compare import Comparison, Disagreement, Measures, StreamResult
from ovavel.eval.economy.gate import KEPT_MEASURES, SAME_DECISIONS
from ovavel.eval.economy.runs import Hour
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.economy.work import Work
from ovavel.runtime.reporting.charts import row_charts
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.types import EconomyMode

__all__ = [
    "COLUMNS",
    "EconomyReport",
    "comparison_cells",
    "hour_parts",
    "hours_svg",
    "notes",
    "to_html",
    "to_json",
    "verdict",
]

_LISTED = 60


class EconomyReport(Struct, frozen=True, kw_only=True):
    """Result of `ovavel eval economy`; the content of its JSON file."""

    bundle_sha256: str
    model: str
    ran: str
    """What computed embeddings and decisions."""
    rule: str
    """Name of the decision rule."""
    lag: int
    work: Work
    """Operations by which work is counted, of a picture and of a sound, in 1e9: of encoders of the published
    ImageBind's size in the precision that ran."""
    comparisons: tuple[Comparison, ...]
    """One for each group of streams and economy mode."""
    streams: tuple[StreamResult, ...]
    gate: EconomyGate | None
    """The judgement on the mode "auto"; None where it was not compared."""
    left_out: tuple[str, ...]
    """Clips that could not be read, and recordings that changed while they were watched; in no figure."""


def to_json(report: EconomyReport) -> bytes:
    """Write the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def verdict(gate: EconomyGate) -> str:
    """Say in a sentence whether "auto" may decide."""
    if gate.passed:
        return f"passed: {gate.decisions:.3%} of {gate.seconds} decisions are the same, and every measure is kept"
    return "failed: " + "; ".join(gate.failures)


COLUMNS = (
    "streams",
    "economy",
    "work",
    "pictures encoded",
    "pictures kept",
    "sounds kept",
    "CPU time",
    "equal decisions",
    "events F",
    "events moved or lost",
    "Avg.",
    "Avg. off",
)


def comparison_cells(each: Comparison) -> tuple[str, ...]:
    """Format a comparison as a row below `COLUMNS`; shares are in percent, work and time of those without economy."""
    spread = f" ± {100 * each.cost_deviation:.1f}" if each.streams > 1 else ""
    return (
        f"{each.group}: {each.streams}, {_time(each.seconds)}",
        each.mode,
        f"{100 * each.cost:.1f}{spread}",
        f"{100 * each.pictures_encoded:.1f}",
        f"{100 * each.pictures_reused:.1f}",
        f"{100 * each.sounds_reused:.1f}",
        f"{100 * each.cpu:.0f}",
        f"{100 * each.same:.3f}",
        f"{100 * each.event_f:.1f}",
        f"{each.moved + each.lost} of {each.events}",
        *(("–", "–") if not (each.economy and each.full) else (_percent(each.economy.avg), _percent(each.full.avg))),
    )


def notes(noted: Iterable[tuple[EconomyMode, str]]) -> list[str]:
    """Return a sentence for each mode of which not all ran, from modes and notes; see `StreamRun.note`."""
    return [f"economy {mode}: {note}" for mode, note in dict.fromkeys(noted) if note]


def hours_svg(group: str, streams: Sequence[StreamResult], work: Work) -> bytes:
    """Draw what each hour of the streams of one group and mode took and saved, as means over the streams.

    In 1e9 operations per second of media; `work` is that of a picture and a sound.
    """
    hours = max(len(each.hours) for each in streams)
    rows = []
    for number in range(hours):
        these = [each.hours[number] for each in streams if number < len(each.hours)]
        rows.append((f"{group}, {streams[0].mode}, hour {number + 1}", hour_parts(these, work)))
    return row_charts(rows, unit="GFLOP a second").encode()


def to_html(report: EconomyReport) -> bytes:
    """Write a self-contained page: the gate, the figures by group, and the cost by hour and cause."""
    charts = [
        section(
            f"{each.group}, {each.mode}",
            f'<div class="timeline">{hours_svg(each.group, _of(report, each), report.work).decode()}</div>',
            facts(_times(each)),
        )
        for each in report.comparisons
    ]
    skips = _skips(report)
    different = [each for stream in report.streams for each in stream.disagreements]
    return page(
        "Economy",
        facts(_facts(report)),
        *([section("May auto decide?", f"<p>{text(verdict(report.gate))}</p>", _rule())] if report.gate else []),
        section("With economy and without", table(COLUMNS, map(comparison_cells, report.comparisons)), _note(report)),
        *([section("Measures", table(_MEASURE_HEAD, _measure_rows(report)))] if _measure_rows(report) else []),
        *charts,
        *([section("Seconds decided without their picture", table(_SKIP_HEAD, skips))] if skips else []),
        section("Decided differently", _different(different)),
        *(
            [section("Left out", table(("what and why",), [(each,) for each in report.left_out]))]
            if report.left_out
            else []
        ),
    )


_SKIP_HEAD = ("streams", "economy", "cause", "seconds")
_MEASURE_HEAD = ("streams", "economy", "Acc.", "Seg.", "Eve.", "Avg.", "events F")


def _measure_rows(report: EconomyReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in report.comparisons:
        sides: tuple[tuple[str, Measures | None], ...] = (("off", each.full), (each.mode, each.economy))
        for mode, side in sides:
            if side is not None:
                events = "–" if side.events is None else _percent(side.events)
                rows.append((each.group, mode, *map(_percent, (side.acc, side.seg, side.eve, side.avg)), events))
    return list(dict.fromkeys(rows))


def hour_parts(hours: Sequence[Hour], work: Work) -> list[tuple[str, float]]:
    """Return 1e9 operations per second of media that hours took and saved, by name."""
    seconds = sum(hour.seconds for hour in hours)
    names = ("encoded", "reused", "pictures", "sounds", "sounds_reused")
    encoded, reused, pictures, sounds, kept = (sum(getattr(hour, name) for hour in hours) / seconds for name in names)
    # What audits encode is encoded, too; what is neither encoded nor kept was decided by sound.
    by_sound = max(0.0, pictures - encoded - reused)
    return [
        ("pictures", encoded * work.vision_gflop),
        ("sounds", (sounds - kept) * work.audio_gflop),
        ("picture kept", reused * work.vision_gflop),
        ("sound kept", kept * work.audio_gflop),
        ("by sound", by_sound * work.vision_gflop),
    ]


def _of(report: EconomyReport, comparison: Comparison) -> list[StreamResult]:
    key = comparison.group, comparison.mode
    return [each for each in report.streams if (each.group, each.mode) == key]


def _skips(report: EconomyReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in report.comparisons:
        causes = sorted({cause for stream in _of(report, each) for cause in stream.skipped})
        for cause in causes:
            count = sum(stream.skipped.get(cause, 0) for stream in _of(report, each))
            rows.append((each.group, each.mode, cause, str(count)))
    return rows


def _different(different: Sequence[Disagreement]) -> str:
    if not different:
        return "<p>No second.</p>"
    rows = [
        (each.stream, str(each.start_s), str(each.seconds), each.full, each.economy) for each in different[:_LISTED]
    ]
    more = f"<p>The first {_LISTED} of {len(different)} stretches.</p>" if len(different) > _LISTED else ""
    return table(("stream", "from, s", "seconds", "all pictures", "economy"), rows) + more


def _times(each: Comparison) -> Iterator[tuple[str, object]]:
    yield "a decision, all pictures", f"{each.full_ms:.1f} ms"
    yield "with economy", f"{each.usual_ms:.1f} ms"
    yield "CPU time of a second", f"{each.full_cpu_ms:.1f} ms, with economy {each.cpu_ms:.1f} ms"
    if each.wake_ms is not None and each.wake_p99_ms is not None:
        yield f"the first after {each.wakes} wake-ups", f"{each.wake_ms:.1f} ms, p99 {each.wake_p99_ms:.1f} ms"
    yield "audits", f"{each.audited}, {each.audits_failed} beyond what was assumed"
    if each.drift_p99 is not None and each.drift_max is not None:
        yield "drift, 1 - cosine", f"p99 {each.drift_p99:.5f}, at most {each.drift_max:.5f}"
    yield "events that match", f"start {each.start_s:.3f} s and end {each.end_s:.3f} s apart on average"


def _facts(report: EconomyReport) -> Iterator[tuple[str, object]]:
    yield "model", report.model
    yield "bundle", report.bundle_sha256[:12]
    yield "decision rule", report.rule
    yield "lag", f"{report.lag} s"
    yield "ran", report.ran


def _rule() -> str:
    return (
        f"<p>Of each group of streams, {100 * SAME_DECISIONS:g} % of the decisions have to be the same, and each "
        f"measure has to keep {100 * KEPT_MEASURES:g} % of its value where there are labels.</p>"
    )


def _note(report: EconomyReport) -> str:
    not_all = "".join(f"<p>{text(each)}</p>" for each in notes((each.mode, each.note) for each in report.comparisons))
    picture, sound = (f"{gflop:.0f}" for gflop in report.work)
    return not_all + (
        '<p class="dim">In percent; work and CPU time are shares of those without economy. Work is that of encoders of '
        f"the published ImageBind's size in the precision that ran, {picture} GFLOP for a picture and {sound} for a "
        "sound. CPU time is of all cores on this machine, with the bundle that was run; decoding is part of it, making "
        "days of the demo world is not.</p>"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _time(seconds: int) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds} s"
