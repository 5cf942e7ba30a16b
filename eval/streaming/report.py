"""Result of a streaming measurement as data, a chart and a page."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from ovavel.eval.streaming.measure import RULES, Curve, LagResult, Measures
from ovavel.runtime.reporting.charts import Series, line_charts
from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.text import names_text

__all__ = ["MEASURES", "StreamingReport", "to_csv", "to_html", "to_json", "to_svg"]

MEASURES = {"acc": "Acc.", "seg": "Seg.", "eve": "Eve.", "avg": "Avg."}


class StreamingReport(Struct, frozen=True, kw_only=True):
    """Result of `ovavel eval lag`; the content of its JSON file."""

    dataset: str
    """Fingerprint of the annotations."""
    split: str
    clips: int
    damaged: dict[str, str]
    """Class/name of each damaged clip of the split → reason; excluded from all figures."""
    classes: int
    bundle_sha256: str
    model: str
    ran: str
    """Description of what computed embeddings and decisions."""
    decided_by: str
    """Name of the decision rule."""
    seeds: tuple[int, ...]
    stream_clips: int
    """Number of clips joined to one stream."""
    tolerance: float
    chosen_lag: int
    """Smallest lag whose Avg. on joined clips, latest score, is at most `tolerance` below the best lag's."""
    chosen_lag_alone: int
    """The same for clips alone, as in the published protocol."""
    curves: tuple[Curve, ...]

    def curve(self, *, joined: bool, rule: str) -> Curve:
        """Return the curve of one way of feeding and deciding."""
        return next(curve for curve in self.curves if curve.joined == joined and curve.rule == rule)


def to_json(report: StreamingReport) -> bytes:
    """Write the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def to_csv(report: StreamingReport) -> bytes:
    """Write every figure in [0, 1]: a row for each way of feeding and deciding, lag, part of the clips and measure."""
    rows: list[tuple[object, ...]] = [("fed", "rule", "lag", "clips", "measure", "value")]
    for curve in report.curves:
        for result in curve.lags:
            for part in ("seen", "unseen", "total"):
                scores: Measures | None = getattr(result, part)
                fed = "joined" if curve.joined else "alone"
                key = (fed, curve.rule, result.lag, part)
                rows += [(*key, field, getattr(scores, field)) for field in MEASURES if scores]
    return csv_table(rows)


def to_svg(report: StreamingReport) -> bytes:
    """Draw each measure against the lag, for every way of feeding and deciding."""
    lags = [result.lag for result in report.curves[0].lags]
    panels = [
        (
            f"{title} in percent",
            [
                Series(
                    _name(curve),
                    [100 * getattr(result.total, field) for result in curve.lags],
                    dashed=curve.rule != RULES[0],
                )
                for curve in report.curves
            ],
        )
        for field, title in MEASURES.items()
    ]
    return line_charts(panels, lags, x_label="lag in seconds", marked=report.chosen_lag).encode()


def to_html(report: StreamingReport) -> bytes:
    """Write a self-contained page: the curves, the cost of joints, and every figure."""
    alone, joined = (report.curve(joined=flag, rule=RULES[0]) for flag in (False, True))
    at = report.chosen_lag
    positions = list(range(1, len(alone.lags[at].acc_at) + 1))
    places = line_charts(
        [
            (
                f"Acc. in percent at lag {lag}",
                [
                    Series(name, [100 * value for value in curve.lags[lag].acc_at])
                    for name, curve in (("clips alone", alone), ("clips joined", joined))
                ],
            )
            for lag in dict.fromkeys((at, len(alone.lags) - 1))
        ],
        positions,
        x_label="second of the clip",
    )
    damaged = [(name, why) for name, why in report.damaged.items()]
    return page(
        f"Streaming accuracy, {report.split}",
        facts(_facts(report)),
        section(
            "Accuracy against lag",
            f'<div class="timeline">{to_svg(report).decode()}</div>',
            f"<p>{_rule(report)}</p>",
            f'<p class="dim">{text(report.ran)}</p>',
        ),
        section("What a joint costs: the latest score", f'<div class="timeline">{places}</div>', _cost(alone, joined)),
        *(section(_name(curve), lag_table(curve, report)) for curve in report.curves),
        *([section("Damaged clips, in no figure", table(("clip", "why"), damaged))] if damaged else []),
    )


def lag_table(curve: Curve, report: StreamingReport) -> str:
    """Format every figure of one curve as an HTML table, with the chosen lag in bold."""
    head = ("lag", *(f"{row} {title}" for row in ("total", "seen", "unseen") for title in MEASURES.values()))
    extra = ("± over orders",) if curve.joined else ()
    rows = [
        (
            str(result.lag),
            *_cells(result),
            *((f"{100 * (result.avg_deviation or 0):.2f}",) if curve.joined else ()),
        )
        for result in curve.lags
    ]
    return table((*head, *extra), rows, bold=(report.chosen_lag,))


def _cells(result: LagResult) -> Iterator[str]:
    rows: tuple[Measures | None, ...] = (result.total, result.seen, result.unseen)
    for row in rows:
        for field in MEASURES:
            yield "–" if row is None else f"{100 * getattr(row, field):.1f}"


def _cost(alone: Curve, joined: Curve) -> str:
    rows = [
        (str(a.lag), *(_points(getattr(b.total, field) - getattr(a.total, field)) for field in MEASURES))
        for a, b in zip(alone.lags, joined.lags, strict=True)
    ]
    note = (
        "<p>Joined less alone, in points, total. A buffer that straddles two clips sees seconds that have nothing to "
        "do with the one it decides on; a buffer of a clip alone is shorter where the clip begins.</p>"
    )
    return note + table(("lag", *MEASURES.values()), rows)


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # adding nought turns -0.0 into 0.0


def _facts(report: StreamingReport) -> Iterator[tuple[str, object]]:
    yield "clips", f"{report.clips} of {report.clips + len(report.damaged)}"
    yield "vocabulary", names_text(report.classes)
    yield "model", report.model
    yield "bundle", report.bundle_sha256[:12]
    yield "dataset", report.dataset[:12]
    yield "decision rule", report.decided_by
    yield "joined", f"{report.stream_clips} clips a stream, orders by seeds {', '.join(map(str, report.seeds))}"


def _rule(report: StreamingReport) -> str:
    return (
        f"Chosen: lag {report.chosen_lag}, the smallest whose Avg. on joined clips, by the latest score, is at most "
        f"{100 * report.tolerance:g} points below the best. By the same rule on clips alone: {report.chosen_lag_alone}."
    )


def _name(curve: Curve) -> str:
    return f"clips {'joined' if curve.joined else 'alone'}, {curve.rule}"
