"""The result of a calibration as data, a reliability diagram and a page."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from ovavel.eval.calibration.fit import Reliability
from ovavel.eval.streaming.measure import Measures
from ovavel.eval.streaming.report import MEASURES
from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.reporting.charts import Bar, bar_charts
from ovavel.runtime.reporting.csv_table import csv_table
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.text import names_text

__all__ = [
    "RULE_MEASURES",
    "CalibrationReport",
    "RuleScores",
    "SplitReport",
    "rule_rows",
    "to_csv",
    "to_html",
    "to_json",
    "to_svg",
]

RULE_MEASURES = tuple(MEASURES.values())


class SplitReport(Struct, frozen=True, kw_only=True):
    """Quality of a calibration on one split."""

    split: str
    clips: int
    damaged: dict[str, str]
    """Class/name of each clip of the split that could not be read → why; in no figure."""
    segments: int
    acc: float
    """Share of seconds decided right, which a calibration does not change; what probabilities are held against."""
    before: Reliability
    """At temperature 1."""
    after: Reliability
    """At the fitted temperature."""
    eve_before: float
    """Eve. of the events with margins of 0."""
    eve_after: float
    """Eve. of the events with the fitted margins."""


class RuleScores(Struct, frozen=True, kw_only=True):
    """A decision rule on one split."""

    split: str
    rule: str
    """Name of the rule."""
    measures: Measures
    """Of its final decisions on clips fed alone, second by second."""


class CalibrationReport(Struct, frozen=True, kw_only=True):
    """Result of `ovavel eval calibrate`; the content of its JSON file."""

    calibration: Calibration
    dataset: str
    """Fingerprint of the annotations."""
    classes: int
    bundle_sha256: str
    """Hash of the bundle before the calibration was written into it."""
    model: str
    ran: str
    """What computed the embeddings and the decisions, in a sentence."""
    lag: int
    """Later seconds after which a score is final: the scores it was fitted on."""
    fitted: SplitReport
    held_out: SplitReport | None
    """None where no split was to be held out."""
    rule: Rule
    """The rule whose scores are calibrated."""
    rules: tuple[RuleScores, ...] = ()
    """That rule, where it was fitted here, beside the bundle's own, agreement and the published fusion."""


def to_json(report: CalibrationReport) -> bytes:
    """Write the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def to_csv(report: CalibrationReport) -> bytes:
    """Write every figure of both splits before and after; for those of a bin, its edges and its decisions beside it."""
    rows: list[tuple[object, ...]] = [("split", "role", "calibration", "figure", "value", "low", "high", "decisions")]
    for role, each in (("fitted", report.fitted), ("held out", report.held_out)):
        if each is None:
            continue
        for when, value, eve in (("before", each.before, each.eve_before), ("after", each.after, each.eve_after)):
            key = (each.split, role, when)
            figures = {"acc": each.acc, "ece": value.ece, "nll": value.nll, "eve": eve}
            rows += [(*key, name, figure, None, None, None) for name, figure in figures.items()]
            for k in value.bins:
                edges = (k.low, k.high, k.decisions)
                rows += [(*key, "claimed", k.probability, *edges), (*key, "right", k.accuracy, *edges)]
    rows += [
        (
            each.split,
            "fitted" if each.split == report.fitted.split else "held out",
            each.rule,
            field,
            value,
            *[None] * 3,
        )
        for each in report.rules
        for field, value in msgspec.structs.asdict(each.measures).items()
    ]
    return csv_table(rows)


def rule_rows(report: CalibrationReport) -> list[tuple[str, ...]]:
    """For each rule on each split: split, rule, and its measures in percent."""
    return [
        (
            each.split,
            each.rule,
            *(f"{100 * getattr(each.measures, field):.1f}" for field in MEASURES),
        )
        for each in report.rules
    ]


def to_svg(report: CalibrationReport) -> bytes:
    """Draw the reliability diagrams before and after, on the held-out split if there is one."""
    return _diagrams(report.held_out or report.fitted).encode()


def to_html(report: CalibrationReport) -> bytes:
    """Write a page that needs nothing else: the diagrams of both splits and every figure."""
    splits = [each for each in (report.fitted, report.held_out) if each]
    damaged = [(each.split, name, why) for each in splits for name, why in each.damaged.items()]
    return page(
        "Calibration",
        facts(_facts(report)),
        section(
            "Before and after",
            table(("", "clips", *_FIGURES), (_row(report, each) for each in splits)),
            f'<p class="dim">{text(report.ran)}</p>',
        ),
        *(
            section(
                f"{each.split}: what decisions claim, and how often they are right",
                f'<div class="timeline">{_diagrams(each)}</div>',
                "<p>Bars that reach the line are calibrated; paler bars represent fewer decisions.</p>",
                table(("probability", "decisions", "mean claim", "right"), _bins(each.after)),
            )
            for each in splits
        ),
        *(
            [section("Decision rules", table(("split", "rule", *RULE_MEASURES), rule_rows(report)))]
            if report.rules
            else []
        ),
        *([section("Damaged clips, in no figure", table(("split", "clip", "why"), damaged))] if damaged else []),
    )


_FIGURES = ("Acc.", "ECE before", "ECE after", "NLL before", "NLL after", "Eve. before", "Eve. after")


def _row(report: CalibrationReport, each: SplitReport) -> tuple[str, ...]:
    return (
        f"{each.split}, {'fitted' if each is report.fitted else 'held out'}",
        str(each.clips),
        f"{100 * each.acc:.1f}",
        *(f"{100 * value.ece:.1f}" for value in (each.before, each.after)),
        *(f"{value.nll:.3f}" for value in (each.before, each.after)),
        *(f"{100 * value:.1f}" for value in (each.eve_before, each.eve_after)),
    )


def _diagrams(each: SplitReport) -> str:
    panels = []
    for title, value in (("before", each.before), ("after", each.after)):
        most = max((each.decisions for each in value.bins), default=1)
        bars = [
            Bar(
                left=k.low,
                right=k.high,
                height=k.accuracy,
                weight=k.decisions / most,
                tooltip=f"{k.decisions} decisions claim {k.probability:.2f}; {k.accuracy:.2f} of them are right",
            )
            for k in value.bins
            if k.decisions
        ]
        panels.append((f"{each.split}, {title}: ECE {100 * value.ece:.1f} %", bars))
    return bar_charts(panels, x_label="probability of the decision", y_label="share that is right")


def _bins(value: Reliability) -> Iterator[tuple[str, ...]]:
    for k in value.bins:
        figures = (f"{k.probability:.3f}", f"{k.accuracy:.3f}") if k.decisions else ("–", "–")
        yield f"{k.low:.2f} to {k.high:.2f}", str(k.decisions), *figures


def _facts(report: CalibrationReport) -> Iterator[tuple[str, object]]:
    yield "temperature", f"{report.calibration.temperature:.4g}"
    yield "event begins at margin", report.calibration.on
    yield "event continues at margin", report.calibration.off
    yield "lag", report.lag
    yield "vocabulary", names_text(report.classes)
    yield "model", report.model
    yield "bundle", report.bundle_sha256[:12]
    yield "dataset", report.dataset[:12]
