"""`ovavel eval score`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from ovavel.eval.commands.endpoint_options import EndpointOptions
from ovavel.eval.commands.options import ScoredOptions
from ovavel.runtime.commands.options import EngineOptions, Many, Maybe, backend_help
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from rich.table import Table

    from ovavel.eval.accuracy.detection import Detection
    from ovavel.eval.accuracy.llm.figures import LLMRun
    from ovavel.eval.accuracy.score import Report, Result
    from ovavel.eval.datasets.dataset import Clip
    from ovavel.eval.datasets.splits import EvaluationInputs

__all__ = ["Score"]

_Protocols = tuple[Literal["fused", "fused-positive", "agreement", "agreement-without-other"], ...]


@dataclass(frozen=True, kw_only=True)
class ScoredEngineOptions(EngineOptions):
    """What decides: a bundle's own graphs, or PyTorch with its checkpoints."""

    backend: Annotated[str, arg(help=backend_help(more="torch (needs --weights), "))] = "onnxruntime"
    weights: Many[Path] = ()
    """What the bundle was made from, ImageBind's checkpoint or the folders of CLIP and CLAP, for the backend torch
    without a feature cache."""
    head: Maybe[Path] = None
    """Checkpoint of the temporal head, for the backend torch."""

    def check(self) -> None:
        """Refuse checkpoints that would not be used. Raises UsageError."""
        given = self._checkpoints
        if given and self.backend != "torch":
            raise UsageError(
                f"--{next(iter(given))} is for --backend torch; {self.backend} runs the bundle's own graphs"
            )

    @property
    def backend_options(self) -> dict[str, Any]:
        """Keyword arguments of `open_backend`, with the checkpoints that were given."""
        return {**super().backend_options, **self._checkpoints}

    @property
    def _checkpoints(self) -> dict[str, tuple[Path, ...] | Path]:
        return {name: given for name, given in (("weights", self.weights), ("head", self.head)) if given}


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score a bundle, or a model behind a chat endpoint, on a labelled data set: OV-AVEBench, or another (--dataset).

    Examples:
        ovavel eval score --data ovavebench --bundle imagebind --out report
        ovavel eval score --data ovavebench --bundle imagebind --features features --split val
        ovavel eval score --data ovavebench --llm http://localhost:8000/v1 --model qwen3-omni --out asked

    Computes Acc, Seg, Eve and their mean over the clips of seen classes, of unseen classes, and of all classes, beside
    the published figures where there are any, and for UnAV-100 also mAP at temporal IoU over whole videos. The
    fused protocol decides with the bundle's head as the paper does; fused-positive excludes classes with a negative
    similarity, as live use does by default; the agreement protocols are training-free and use the embeddings
    unchanged. Clips that cannot be read are left out of the scores, counted and listed; if they are more than 2 %, no
    published figures are shown.

    Without --features the bundle's encoders run over the media, and an interrupted run starts over. For repeated
    measurements or slow encoders, run 'ovavel train features --bundle' once, which can be interrupted and resumed, and
    pass its folder as --features. The report states what ran: with --features, only the head.

    With --llm, a model receives the stills and the sound of each clip and answers what is seen and what is heard in
    each second; an event is where both agree. An endpoint that drops sound or pictures is detected at the start and
    refused. An interrupted run resumes. Clips that the server did not answer for are left out and listed, and the exit
    code is 1: the same command asks for them again.
    """

    dataset: ScoredOptions
    """What to measure, and on which clips."""
    split: Literal["test", "val", "train"] = "test"
    """Which clips to score, always against all names of the dataset."""
    clips: Maybe[Annotated[int, Meta(ge=1, le=1_000_000_000)]] = None
    """How many of them, evenly spread over the split; all by default."""
    protocols: _Protocols = ("fused", "agreement", "agreement-without-other")
    """How the bundle decides; the report shows classes, confusions and clips of the first one."""
    rules: Many[str] = ()
    """Decision rules to score too, as they would decide live, each on a whole clip: positive, published, agreement,
    av2a, cuerator, temperatures, clip-prior, or a preset; "+debiased" and "+offset" after a rule add reference
    statistics and an offset of the background. What has to be fitted is, on --fit."""
    fit: Literal["val", "train"] = "val"
    """Which clips to fit rules on."""
    training_free: bool = False
    """Apply the rules to the embeddings as they are, without the bundle's head."""
    out: Maybe[Path] = None
    """Folder for ovave-SPLIT.json, .csv and .html, created if missing; without it the table is only printed."""
    engine: ScoredEngineOptions = field(default_factory=ScoredEngineOptions)
    """What decides, and where."""
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    """Which model is asked."""

    def run(self) -> int:
        """Score the split, print the table and write the files."""
        from ovavel.eval.accuracy.llm.run import NO_ANSWER
        from ovavel.runtime.system.files import report_folder

        self._check()
        if self.out:
            report_folder(self.out, "ovave-*.json")
        report = self._score()
        written = _write(report, self.out) if self.out else []
        _print(report, written)
        return 1 if any(record.kind == NO_ANSWER for record in report.damaged) else 0

    def _check(self) -> None:
        from ovavel.runtime.pipeline.rules.apply import named_rule

        if not self.protocols and not self.rules:
            raise UsageError("which protocols? For example: --protocols fused agreement")
        if self.training_free and not self.rules:
            raise UsageError("--training-free is for --rules; the agreement protocols are training-free already")
        for name in self.rules:
            named_rule(name)
        self.engine.check()
        self.endpoint.check(self.out)
        if self.dataset.bundle:
            return
        if not self.endpoint.llm:
            raise UsageError("what is scored? Give --bundle, or --llm and --model, or all of them")
        engine = self.engine
        given: dict[str, Any] = {"features": self.dataset.features, "rules": self.rules or None}
        given |= {"precision": engine.precision, "weights": engine.weights or None}
        for flag, value in (given | {"require-signature": engine.require_signature}).items():
            if value is not None:
                raise UsageError(f"--{flag} is for a bundle: give --bundle as well")

    def _score(self) -> Report:
        from ovavel.eval.accuracy.detection import detect
        from ovavel.eval.accuracy.score import Report, score_asked
        from ovavel.eval.datasets.splits import select_clips

        with self.dataset.open_inputs(self.engine) as inputs:
            dataset = inputs.dataset if inputs else self.dataset.open()
            bundle = _Scored(inputs, self) if inputs else None
            clips = bundle.split.clips if bundle else select_clips(dataset, self.split, self.clips)
            asked = self.endpoint.ask(dataset, clips, self.out) if self.endpoint.llm and self.out else None
            damaged = (*(bundle.split.damaged if bundle else ()), *(asked.damaged if asked else ()))
            clips = asked.clips if asked else clips
            truth = (dataset.truths if dataset.overlapping else dataset.truth)(clips)
            results = (
                *(bundle.results(clips) if bundle else ()),
                *(score_asked(asked, truth, len(dataset.names)) if asked else ()),
            )
            return Report(
                root=str(self.dataset.data),
                split=self.split,
                dataset_fingerprint=dataset.fingerprint,
                names=dataset.names,
                clips=clips,
                damaged=damaged,
                truth=truth,
                results=results,
                bundle=inputs.bundle if inputs else None,
                backend=inputs.backend.info if inputs else None,
                cache=inputs.cache if inputs else None,
                llm=asked.run if asked else None,
                detection=detect(dataset, self.split, clips, (each.tracks(len(dataset.names)) for each in results)),
            )


class _Scored:
    """A bundle's embeddings of the clips of a split, and what its protocols and rules decide on them."""

    def __init__(self, inputs: EvaluationInputs, command: Score) -> None:
        from ovavel.eval.calibration.rules import RuleMaker

        self.maker = RuleMaker(inputs, command.fit, training_free=command.training_free)
        whole = command.clips is None
        self.split = self.maker.split(command.split) if whole else inputs.split(command.split, command.clips)
        self.inputs, self.command = inputs, command

    def results(self, clips: tuple[Clip, ...]) -> Iterator[Result]:
        """Score those of its clips that are in `clips`."""
        from ovavel.eval.accuracy.score import score_protocol, score_rule
        from ovavel.runtime.system.bars import shown_progress

        command, head, text = self.command, self.inputs.backend.head, self.inputs.text
        split = self.split if clips == self.split.clips else self.split.only(clips)
        with shown_progress() as progress:
            asked = [self.maker.rule(name, command.split, progress) for name in dict.fromkeys(command.rules)]
        for protocol in dict.fromkeys(command.protocols):
            yield score_protocol(protocol, split, head, text)
        for i, rule in enumerate(asked):
            if rule in asked[:i]:  # a fitted offset may be 0
                continue
            yield score_rule(rule, self.maker.scores(rule, split), split)


def _write(report: Report, out: Path) -> list[Path]:
    from ovavel.eval.accuracy.html import to_html
    from ovavel.eval.accuracy.report import to_csv, to_json
    from ovavel.runtime.system.files import atomic_write

    paths = [out / f"ovave-{report.split}.{kind}" for kind in ("json", "csv", "html")]
    for path, write in zip(paths, (to_json, to_csv, to_html), strict=True):
        atomic_write(path, write(report))
    return paths


def _answers(run: LLMRun) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.accuracy.llm.figures import HEAD

    table = Table(title="answers: how they were read, and what one took", title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name == HEAD[0] else "right", no_wrap=name != HEAD[0])
    for method, *figures in run.rows:
        table.add_row(Text(method), *figures)
    return table


def _mean_ap(report: Report, detection: Detection) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.accuracy.report import MAP_HEAD, map_rows

    table = Table(title=f"mAP at temporal IoU: {detection.counted}", title_justify="left")
    for name in MAP_HEAD:
        table.add_column(name, justify="left" if name == MAP_HEAD[0] else "right", no_wrap=name != MAP_HEAD[0])
    for name, *figures in map_rows(report):
        table.add_row(Text(name), *figures)
    return table


def _print(report: Report, written: list[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.accuracy.bootstrap import LEVEL
    from ovavel.eval.accuracy.report import interval_rows, note, table_rows
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True)
    table = Table(title=Text(f"{one_line(report.root)}, {report.split}: {report.counted}"), title_justify="left")
    table.add_column("method")
    for part in ("seen", "unseen", "total"):
        for i, measure in enumerate(("Acc", "Seg", "Eve", "Avg")):
            table.add_column(f"{part if i == 0 else ''}\n{measure}", justify="right", no_wrap=True)
    rows = table_rows(report)
    for i, (name, *figures) in enumerate(rows):
        ours = i >= len(rows) - len(report.results)
        table.add_row(
            Text(name), *figures, style="bold" if ours else "", end_section=i + 1 == len(rows) - len(report.results)
        )
    console.print(table)
    for name, *ends in interval_rows(report):
        console.print(
            f"{name}: total Avg between {ends[-1].replace('–', ' and ')} in {LEVEL:.0%} of resamples", markup=False
        )
    if report.llm:
        console.print(_answers(report.llm))
    if report.detection:
        console.print(_mean_ap(report, report.detection))
    console.print(report.ran, markup=False)
    remark = note(report)
    console.print(remark, markup=False, style="bold red" if remark.startswith("WARNING") else "")
    for record in report.damaged[:_NAMED]:
        clip = one_line(f"{record.split}/{record.category}/{record.name}")
        console.print(f"damaged: {clip}, {record.kind}: {one_line(record.message)}", markup=False)
    if len(report.damaged) > _NAMED:
        console.print(f"damaged: {len(report.damaged) - _NAMED} more; --out lists them all", markup=False)
    if written:
        console.print(
            one_line(f"wrote {', '.join(path.name for path in written)} in {written[0].parent}"), markup=False
        )


_NAMED = 10
