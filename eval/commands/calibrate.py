"""`ovavel eval calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ovavel.eval.commands.options import MeasuredOptions
from ovavel.runtime.commands.options import EngineOptions
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.types import BUFFER, LAG

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from ovavel.eval.calibration.report import CalibrationReport, SplitReport
    from ovavel.eval.datasets.splits import Split
    from ovavel.runtime.bundle.calibration import Calibration

__all__ = ["Calibrate"]

_SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Fit on clips with known truth what makes a bundle's scores mean something.

    Examples:
        ovavel eval calibrate --data ovavebench --bundle imagebind --features features --out calibration
        ovavel eval calibrate --data ovavebench --bundle imagebind --features features --out calibration --write

    Fits a temperature, with which live decisions carry a probability, and the margins at which events begin and go on,
    by the events' F score. Looks at another split to see whether they hold: reliability diagram and expected
    calibration error, before and after. Writes calibration.json, .csv and .html and reliability.svg; --write puts
    the result into the bundle, where 'ovavel live' and 'ovavel localize' find it.

    It holds for the names of the dataset and the bundle's fusion: with another vocabulary there are no probabilities,
    and the margins are a guide.
    """

    dataset: MeasuredOptions
    """What to measure, and on which clips."""
    fit: _SplitName = "val"
    """Which clips to fit on."""
    held_out: Literal["train", "val", "test", "none"] = "test"
    """Which other clips to look at afterwards, if any."""
    lag: Annotated[int, Meta(ge=0, le=BUFFER - 1)] = LAG
    """Seconds of later context, 0 to 9, of the decisions to calibrate: the lag it is to be used with."""
    out: Path
    """Folder for the results; made if it is not there."""
    write: bool = False
    """Put the calibration into the bundle, in the place of the one it has."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Fit, look, print and write."""
        from rich.console import Console

        from ovavel.eval.calibration.fit import fit_calibration
        from ovavel.eval.calibration.report import CalibrationReport, to_csv, to_html, to_json, to_svg
        from ovavel.eval.streaming.measure import final_scores
        from ovavel.runtime.bundle.calibration import OTHER_NAMES
        from ovavel.runtime.pipeline.localizer import check_lag, deciding_head
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.reporting.text import shown_name
        from ovavel.runtime.system.files import atomic_write, report_folder

        check_lag(self.lag)
        if self.held_out == self.fit:
            raise UsageError(f"--held-out {self.held_out} is what is fitted on; give another split, or none")
        report_folder(self.out, "calibration.json")
        with self.dataset.open_inputs(self.engine) as inputs:
            splits = [inputs.split(name) for name in (self.fit, self.held_out) if name != "none"]
            text, dataset, bundle, ran = inputs.text, inputs.dataset, inputs.bundle, inputs.ran
            head = deciding_head(inputs.backend.head, bundle.manifest.fusion.decision)
            with Console(stderr=True).status("deciding"):
                scores = [final_scores(head, s.audio, s.vision, text, lag=self.lag) for s in splits]
        with Console(stderr=True).status("fitting"):
            calibration = fit_calibration(
                scores[0],
                splits[0].truth,
                dataset=dataset.fingerprint,
                names=dataset.names,
                fusion=bundle.manifest.fusion.decision,
                held_out=(scores[1], splits[1].truth) if len(splits) > 1 else None,
            )
            looked = [_look(split, each, calibration) for split, each in zip(splits, scores, strict=True)]
        report = CalibrationReport(
            calibration=calibration,
            dataset=dataset.fingerprint,
            classes=len(text),
            bundle_sha256=bundle.sha256,
            model=bundle.manifest.model.name,
            ran=ran,
            lag=self.lag,
            fitted=looked[0],
            held_out=looked[1] if len(splits) > 1 else None,
        )
        files = {
            "calibration.json": to_json,
            "calibration.csv": to_csv,
            "reliability.svg": to_svg,
            "calibration.html": to_html,
        }
        for name, make in files.items():
            atomic_write(self.out / name, make(report))
        if self.write:
            bundle.save_calibration(calibration)
        console = OutputConsole(highlight=False, soft_wrap=True)
        for split in splits:
            console.print(split.counted, markup=False)
        console.print(ran, markup=False)
        _print(report, console)
        console.print(f"wrote {', '.join(files)} in {shown_name(str(self.out))}", markup=False)
        if self.write:
            console.print(f"{shown_name(str(bundle.path))} is calibrated now", markup=False)
            if not calibration.fits(bundle.vocabulary.names):
                console.print(OTHER_NAMES, markup=False)
        else:
            console.print("--write puts it into the bundle")
        return 0


def _look(split: Split, scores: NDArray[np.float32], calibration: Calibration) -> SplitReport:
    from ovavel.eval.accuracy.protocols import fused_labels
    from ovavel.eval.calibration.fit import reliability, score_margins
    from ovavel.eval.calibration.report import SplitReport

    truth = split.truth
    return SplitReport(
        split=split.name,
        clips=len(split.clips),
        damaged=split.reasons,
        segments=truth.size,
        acc=float((fused_labels(scores) == truth).mean()),
        before=reliability(scores, truth, temperature=1.0),
        after=reliability(scores, truth, temperature=calibration.temperature),
        eve_before=score_margins(scores, truth, on=0.0, off=0.0),
        eve_after=score_margins(scores, truth, on=calibration.on, off=calibration.off),
    )


def _print(report: CalibrationReport, console: Console) -> None:
    from rich.table import Table

    calibration = report.calibration
    console.print(
        f"temperature {calibration.temperature:.4g}; events begin at margin {calibration.on:g} and go on at "
        f"{calibration.off:g}; decisions of lag {report.lag}"
    )
    table = Table(title="percent")
    for name in ("", "Acc.", "ECE before", "ECE after", "Eve. before", "Eve. after"):
        table.add_column(name, justify="right" if name else "left")
    for role, each in (("fitted", report.fitted), ("held out", report.held_out)):
        if each:
            values = (each.acc, each.before.ece, each.after.ece, each.eve_before, each.eve_after)
            table.add_row(f"{each.split}, {role}", *(f"{100 * value:.1f}" for value in values))
    console.print(table)
