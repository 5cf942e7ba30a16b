"""`ovavel eval calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ovavel.eval.commands.options import MeasuredOptions
from ovavel.runtime.commands.options import EngineOptions, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.types import BUFFER, LAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from ovavel.eval.calibration.report import CalibrationReport, RuleScores, SplitReport
    from ovavel.eval.calibration.rules import RuleMaker
    from ovavel.eval.datasets.splits import Split
    from ovavel.runtime.bundle.calibration import Calibration, Rule
    from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
    from ovavel.runtime.types import RuleKind

__all__ = ["Calibrate"]

_SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Calibrate a bundle's scores on labelled clips.

    Examples:
        ovavel eval calibrate --data ovavebench --bundle imagebind --features features --out calibration
        ovavel eval calibrate --data ovavebench --bundle imagebind --features features --out calibration --write

    Fits a temperature, which gives live decisions a probability, and the margins at which events begin and continue,
    chosen by the events' F score. Then evaluates them on another split: reliability diagram and expected calibration
    error, before and after. Writes calibration.json, .csv and .html and reliability.svg; --write stores the result in
    the bundle, where 'ovavel live' and 'ovavel localize' find it.

    A calibration is valid for the names of the dataset and one decision rule: with another vocabulary there are no
    probabilities, and the margins are only a guide. With --rule, everything that this rule has is fitted first, and
    scored beside the bundle's own; with --write the bundle then decides by it.
    """

    dataset: MeasuredOptions
    """What to measure, and on which clips."""
    fit: _SplitName = "val"
    """Which clips to fit on."""
    held_out: Literal["train", "val", "test", "none"] = "test"
    """Which other clips to evaluate on afterwards, if any."""
    rule: Maybe[str] = None
    """Decision rule to fit: positive, published, agreement, av2a, cuerator or temperatures; the suffixes "+debiased"
    and "+offset" add reference statistics and an offset of the background. By default the bundle's own is kept."""
    lag: Annotated[int, Meta(ge=0, le=BUFFER - 1)] = LAG
    """Seconds of later context, 0 to 9, of the decisions to calibrate: the lag that will be used."""
    out: Path
    """Folder for the results; created if missing."""
    write: bool = False
    """Write the calibration into the bundle, replacing the one it has."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Fit, evaluate, print and write."""
        from rich.console import Console

        from ovavel.eval.calibration.fit import fit_calibration
        from ovavel.eval.calibration.report import CalibrationReport, to_csv, to_html, to_json, to_svg
        from ovavel.eval.calibration.rules import RuleMaker
        from ovavel.eval.streaming.measure import final_scores
        from ovavel.runtime.bundle.calibration import OTHER_NAMES
        from ovavel.runtime.pipeline.localizer import check_lag
        from ovavel.runtime.pipeline.rules.apply import check_rule, named_rule
        from ovavel.runtime.pipeline.rules.registry import check_live
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.reporting.text import shown_name
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.system.files import atomic_write, report_folder

        check_lag(self.lag)
        if self.rule:
            check_live(named_rule(self.rule)[0])
        if self.held_out == self.fit:
            raise UsageError(f"--held-out {self.held_out} is the split that is fitted on; give another one, or none")
        report_folder(self.out, "calibration.json")
        with self.dataset.open_inputs(self.engine) as inputs:
            maker = RuleMaker(inputs, self.fit)
            splits = [maker.split(name) for name in (self.fit, self.held_out) if name != "none"]
            text, dataset, bundle, ran = inputs.text, inputs.dataset, inputs.bundle, inputs.ran
            with shown_progress() as progress:
                rule = maker.fitted(self.rule, progress) if self.rule else maker.rule(maker.own.name, self.fit)
            head = maker.deciding(rule)
            with Console(stderr=True).status("deciding"):
                scores = [final_scores(head, s.audio, s.vision, text, lag=self.lag) for s in splits]
                rules = _compare(maker, splits, scores, rule, text, self.lag) if self.rule else ()
        with Console(stderr=True).status("fitting"):
            calibration = fit_calibration(
                scores[0],
                splits[0].truth,
                dataset=dataset.fingerprint,
                names=dataset.names,
                background_texts=bundle.vocabulary.background_texts,
                fusion=rule.name,
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
            rule=rule,
            rules=rules,
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
            bundle = bundle.save_calibration(calibration, rule if self.rule else None)
        console = OutputConsole(highlight=False, soft_wrap=True)
        for split in splits:
            console.print(split.counted, markup=False)
        console.print(ran, markup=False)
        _print(report, console)
        console.print(f"wrote {', '.join(files)} in {shown_name(str(self.out))}", markup=False)
        if self.write:
            console.print(f"{shown_name(str(bundle.path))} is now calibrated", markup=False)
            console.print(f"it decides by {bundle.manifest.fusion.decides.name}", markup=False)
            own, vocabulary = bundle.manifest.fusion, bundle.vocabulary
            try:
                check_rule(own.decides, own.decision, vocabulary.names, len(vocabulary.background_texts))
            except UsageError as error:
                console.print(f"but not with its own names: {error}", markup=False)
            if not calibration.fits(bundle.vocabulary):
                console.print(OTHER_NAMES, markup=False)
        else:
            console.print("--write stores it in the bundle")
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


def _compare(
    maker: RuleMaker,
    splits: Sequence[Split],
    scores: Sequence[NDArray[np.float32]],
    rule: Rule,
    text: TextEmbeddings,
    lag: int,
) -> tuple[RuleScores, ...]:
    """Score `rule`, whose `scores` are known, beside the bundle's own, agreement and the published fusion."""
    from ovavel.eval.accuracy.metrics import score_clips
    from ovavel.eval.accuracy.protocols import fused_labels
    from ovavel.eval.calibration.report import RuleScores
    from ovavel.eval.streaming.measure import Measures, final_scores
    from ovavel.runtime.bundle.calibration import Rule

    kinds: list[RuleKind] = ["agreement"] if maker.own.kind == "learned" else ["agreement", "published"]
    compared = {each.name: each for each in (*(Rule(kind=kind) for kind in kinds), rule)}
    if maker.own.name not in compared:
        compared = {maker.own.name: maker.own, **compared}
    elif maker.own != compared[maker.own.name]:  # the same kind with other parameters
        compared = {f"{maker.own.name}, as it was": maker.own, **compared}
    found = []
    for split, known in zip(splits, scores, strict=True):
        for name, each in compared.items():
            decided = known
            if each is not rule:
                decided = final_scores(maker.deciding(each), split.audio, split.vision, text, lag=lag)
            measures = Measures(**score_clips(fused_labels(decided), split.truth, len(text))._asdict())
            found.append(RuleScores(split=split.name, rule=name, measures=measures))
    return tuple(found)


def _print(report: CalibrationReport, console: Console) -> None:
    from rich.table import Table

    from ovavel.eval.calibration.report import RULE_MEASURES, rule_rows

    calibration = report.calibration
    if report.rules:
        parameters = ", ".join(f"{name} {value:g}" for name, value in report.rule.parameters.items())
        console.print(f"decision rule {report.rule.name}{': ' if parameters else ''}{parameters}", markup=False)
        compared = Table(title=f"percent, decisions of lag {report.lag}")
        for name in ("split", "rule", *RULE_MEASURES):
            compared.add_column(name, justify="right" if name in RULE_MEASURES else "left")
        for row in rule_rows(report):
            compared.add_row(*row)
        console.print(compared)
    console.print(
        f"temperature {calibration.temperature:.4g}; events begin at margin {calibration.on:g} and continue at "
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
