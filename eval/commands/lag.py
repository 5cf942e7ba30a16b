"""`ovavel eval lag`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovavel.eval.commands.options import MeasuredOptions
from ovavel.runtime.commands.options import EngineOptions, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Seed

if TYPE_CHECKING:
    from ovavel.eval.streaming.report import StreamingReport

__all__ = ["Lag"]


@dataclass(frozen=True, kw_only=True)
class Lag:
    """Score a bundle on clips fed second by second, at every lag.

    Example:
        ovavel eval lag --data ovavebench --bundle imagebind --features features --out streaming

    Every clip goes through the live decision: a second is decided once LAG later seconds have arrived, for LAG from 0
    to 9, by its latest score and by the mean of its scores over the buffers so far. Then clips are joined, in random
    order, to ten-minute streams, where buffers straddle two clips. Writes streaming.json, .csv, .html and .svg, and
    reports the smallest lag within half a point of the best, which is how long live use needs to wait.

    Without --features the bundle's encoders run over the media, and an interrupted run starts over; 'ovavel train
    features --bundle' builds a reusable cache.
    """

    dataset: MeasuredOptions
    """What to measure, and on which clips."""
    split: Literal["test", "val", "train"] = "test"
    """Which clips to score, against all names of the dataset."""
    rule: Maybe[str] = None
    """Decision rule, as for 'ovavel eval score --rules', by default the bundle's own; what has to be fitted is, on the
    clips of --fit."""
    fit: Literal["val", "train"] = "val"
    """Which clips to fit a rule on."""
    training_free: bool = False
    """Apply --rule to the embeddings as they are, without the bundle's head."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds of the random orders in which clips are joined; their figures are averaged."""
    out: Path
    """Folder for the results; created if missing."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Score the split, print the table and write the files."""
        from ovavel.eval.calibration.rules import RuleMaker
        from ovavel.eval.streaming.measure import (
            RULES,
            STREAM_CLIPS,
            TOLERANCE,
            check_seeds,
            chosen_lag,
            measure_streaming,
        )
        from ovavel.eval.streaming.report import StreamingReport, to_csv, to_html, to_json, to_svg
        from ovavel.runtime.pipeline.rules.apply import named_rule
        from ovavel.runtime.pipeline.rules.registry import check_live
        from ovavel.runtime.system.bars import rated_bar, shown_progress
        from ovavel.runtime.system.files import atomic_write, report_folder

        check_seeds(self.seeds)
        if self.rule:
            check_live(named_rule(self.rule)[0])
        elif self.training_free:
            raise UsageError("--training-free is for --rule: which one? For example: --rule agreement")
        report_folder(self.out, "streaming.json")
        with self.dataset.open_inputs(self.engine) as inputs:
            maker = RuleMaker(inputs, self.fit, training_free=self.training_free)
            split = maker.split(self.split)
            with shown_progress() as progress:
                rule = maker.rule(self.rule or maker.own.name, self.split, progress)
            with rated_bar("clips") as progress:
                curves = measure_streaming(
                    maker.deciding(rule),
                    split.audio,
                    split.vision,
                    inputs.text,
                    split.truths,
                    split.seen,
                    seeds=self.seeds,
                    progress=progress,
                )
        latest = {curve.joined: chosen_lag(curve) for curve in curves if curve.rule == RULES[0]}
        report = StreamingReport(
            dataset=inputs.dataset.fingerprint,
            split=self.split,
            clips=len(split.clips),
            damaged=split.reasons,
            classes=len(inputs.text),
            bundle_sha256=inputs.bundle.sha256,
            model=inputs.bundle.manifest.model.name,
            ran=inputs.ran,
            decided_by=rule.name,
            seeds=self.seeds,
            stream_clips=STREAM_CLIPS,
            tolerance=TOLERANCE,
            chosen_lag=latest[True],
            chosen_lag_alone=latest[False],
            curves=curves,
        )
        for suffix, write in (("json", to_json), ("csv", to_csv), ("svg", to_svg), ("html", to_html)):
            atomic_write(self.out / f"streaming.{suffix}", write(report))
        _print(report, split.counted, self.out)
        return 0


def _print(report: StreamingReport, counted: str, out: Path) -> None:
    from rich.table import Table

    from ovavel.eval.streaming.measure import RULES
    from ovavel.runtime.reporting.console import OutputConsole

    console = OutputConsole(highlight=False, soft_wrap=True)
    console.print(counted, markup=False)
    console.print(report.ran, markup=False)
    console.print(f"decision rule: {report.decided_by}", markup=False)
    table = Table(title="Acc / Seg / Eve / Avg in percent, total")
    table.add_column("lag", justify="right")
    for curve in report.curves:
        table.add_column(f"{'joined' if curve.joined else 'alone'}\n{curve.rule}", justify="right", no_wrap=True)
    for lag, results in enumerate(zip(*(curve.lags for curve in report.curves), strict=True)):
        cells = []
        for result in results:
            row = result.total
            spread = "" if result.avg_deviation is None else f" ± {100 * result.avg_deviation:.1f}"
            cells.append(" ".join(f"{100 * value:.1f}" for value in (row.acc, row.seg, row.eve, row.avg)) + spread)
        table.add_row(str(lag), *cells, style="bold" if lag == report.chosen_lag else None)
    console.print(table)
    at = report.chosen_lag
    alone, joined = (report.curve(joined=flag, rule=RULES[0]).lags[at].total.avg for flag in (False, True))
    console.print(
        f"lag {at} is the smallest within {100 * report.tolerance:g} points Avg. of the best on joined clips "
        f"(on clips alone: {report.chosen_lag_alone}); joining costs {100 * (alone - joined):.1f} points there"
    )
    console.print(one_line(f"wrote streaming.json, streaming.svg, streaming.html in {out}"), markup=False)
