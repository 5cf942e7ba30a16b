"""`ovavel eval economy`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import EngineOptions, Many, Maybe
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.system.bounds import Meta, Seed

if TYPE_CHECKING:
    from ovavel.eval.economy.compare import Comparison, StreamResult
    from ovavel.eval.economy.report import EconomyReport
    from ovavel.eval.economy.runs import StreamRun
    from ovavel.eval.economy.streams import Stream
    from ovavel.runtime.backends import Backend, BackendInfo
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.manifest import EconomyGate
    from ovavel.runtime.system.progress import Progress
    from ovavel.runtime.types import EconomyMode

__all__ = ["CompareEconomy"]


@dataclass(frozen=True, kw_only=True)
class CompareEconomy:
    """Compare what economy decides with what all pictures decide, and measure what it saves.

    Examples:
        ovavel eval economy --days sparse dense worst --hours 24 --out economy
        ovavel eval economy camera.mp4 --bundle imagebind --out economy --write
        ovavel eval economy --data ovavebench --bundle imagebind --out economy --write

    Each stream is watched without economy and with each of --modes, as fast as this machine can: days of the demo
    world (--days), which are made as they are watched, the clips of a labelled data set joined to one stream (--data),
    or recordings. Reports the share of equal decisions, when events begin and end, the measures where there are
    labels, and the work saved by hour and cause. Writes economy.json, economy.html and a picture for each kind of
    stream and mode.

    The mode "auto" passes if 99.9 % of the decisions are equal and each measure keeps 99.5 % of its value, else the
    exit code is 1. --write stores the outcome in the bundle: 'ovavel live --economy auto' needs it. Every finished run
    is kept in the folder runs of --out; the same command resumes after an interruption.
    """

    recordings: Positional[Many[Path]] = ()
    """Recordings, or folders to search for them."""
    bundle: Maybe[Path] = None
    """Folder written by 'ovavel bundle export'; for --days, the demo's by default."""
    days: Many[Literal["sparse", "dense", "worst"]] = ()
    """Days of the demo world: sparse has 20 events an hour, dense 120, and in worst something always moves and sounds.
    Only for bundles that know its classes, such as the demo's."""
    hours: Annotated[float, Meta(gt=0, le=24)] = 2.0
    """How much of each day, from six in the morning."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    """One day of each kind for each seed."""
    data: Maybe[Path] = None
    """Root of a labelled data set whose classes are all in the bundle's vocabulary, see 'ovavel eval score'."""
    annotations: Maybe[Path] = None
    """Folder of its annotation files, if it is neither the root nor its subfolder annotations."""
    dataset: Literal["ov-avebench", "ave", "llp", "unav"] = "ov-avebench"
    """Kind of data set."""
    split: Literal["test", "val", "train"] = "test"
    """Which of its clips."""
    clips: Maybe[Annotated[int, Meta(ge=1, le=1_000_000_000)]] = None
    """How many of them, evenly spread over the split; all by default."""
    modes: tuple[Literal["exact", "auto"], ...] = ("exact", "auto")
    """Which economies to compare."""
    economy_budget: Annotated[float, Meta(gt=0, le=1)] = 0.002
    """For auto: how far the embedding of a picture that is not encoded again may drift, as 1 - cosine at the 99th
    percentile."""
    fusion: Maybe[str] = None
    """Decision rule, as for 'ovavel live'; the bundle's own by default."""
    write: bool = False
    """Store the outcome for the mode "auto" in the bundle's manifest."""
    film: Maybe[Annotated[int, Meta(ge=1, le=600)]] = None
    """Write so many seconds around the first event of each day as a video, too, to see what is watched."""
    out: Path
    """Folder for the results; created if missing."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Watch, compare, print and write. Returns 1 if the mode "auto" was compared and fails."""
        from contextlib import closing

        from ovavel.eval.economy.films import write_films
        from ovavel.eval.economy.report import hours_svg, to_html, to_json
        from ovavel.runtime.system.files import atomic_write, make_folder, report_folder
        from ovavel.runtime.verification.open import open_compared

        self._check()
        report_folder(self.out, "economy.json")
        make_folder(self.out / "runs")
        bundle = self._bundle()
        if self.film:
            write_films(self.out, self.days, self.seeds, self.film)
        with closing(open_compared(bundle, **self.engine.backend_options)) as backend:
            streams = tuple(self._streams(bundle, backend))
            report = self._compare(bundle, backend, streams)
        atomic_write(self.out / "economy.json", to_json(report))
        atomic_write(self.out / "economy.html", to_html(report))
        for each in report.comparisons:
            of = [s for s in report.streams if (s.group, s.mode) == (each.group, each.mode)]
            atomic_write(
                self.out / f"economy-{each.group.split()[0]}-{each.mode}.svg", hours_svg(each.group, of, report.work)
            )
        if self.write and report.gate:
            bundle.save_economy_gate(report.gate)
        _print(report, self.out)
        return 1 if report.gate and not report.gate.passed else 0

    def _check(self) -> None:
        from ovavel.eval.streaming.measure import check_seeds

        given = [flag for flag, there in (("--days", self.days), ("--data", self.data)) if there]
        given += ["recordings"] if self.recordings else []
        if len(given) != 1:
            raise UsageError(
                f"compare on {' or '.join(given)}? Leave one of them out"
                if given
                else "compare on what? Give --days sparse, a labelled data set with --data, or recordings"
            )
        check_seeds(self.seeds)
        if not self.modes:
            raise UsageError("which economies? For example: --modes exact auto")
        if self.write and "auto" not in self.modes:
            raise UsageError('--write stores the outcome of the mode "auto": add it to --modes')
        if not self.bundle and (self.write or not self.days):
            raise UsageError(
                "--write changes a bundle: give one with --bundle, for example the copy in demo-out of 'ovavel demo'"
                if self.write and self.days
                else "which bundle? Give it with --bundle"
            )
        if self.film and not self.days:
            raise UsageError("--film is for --days; recordings can be watched as they are")
        if not self.data and (self.annotations or self.clips is not None):
            raise UsageError(f"--{'annotations' if self.annotations else 'clips'} is for --data")

    def _bundle(self) -> Bundle:
        from ovavel.eval.demo.assets import Assets

        return self.engine.open_bundle(self.bundle) if self.bundle else Assets.open().bundle

    def _streams(self, bundle: Bundle, backend: Backend) -> Iterator[Stream]:
        from ovavel.eval.datasets.readers.kinds import open_dataset
        from ovavel.eval.datasets.splits import select_clips
        from ovavel.eval.economy.streams import dataset_stream, day_streams, recording_streams
        from ovavel.runtime.commands.localize import find_media
        from ovavel.runtime.pipeline.preprocess import sound_rate

        names = bundle.vocabulary.names
        if self.data:
            dataset = open_dataset(self.data, self.annotations, self.dataset)
            clips = select_clips(dataset, self.split, self.clips)
            yield dataset_stream(dataset, clips, names, sound_rate(backend.encoders))
        elif self.recordings:
            yield from recording_streams(find_media(self.recordings))
        else:
            yield from day_streams(dict.fromkeys(self.days), self.seeds, max(1, round(3600 * self.hours)), names)

    def _compare(self, bundle: Bundle, backend: Backend, streams: tuple[Stream, ...]) -> EconomyReport:
        from ovavel.eval.datasets.encode import what_ran
        from ovavel.eval.economy.compare import compare_runs, published_work, summarize
        from ovavel.eval.economy.report import EconomyReport
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.types import LAG

        results: list[StreamResult] = []
        left_out = [clip for stream in streams for clip in stream.damaged]
        rule = ""
        with rated_bar("s", rate="× real time") as progress:
            for stream in streams:
                if runs := self._watch(bundle, backend, stream, progress):
                    rule = runs[0].rule
                    results += [compare_runs(stream, runs[0], run, bundle.vocabulary.names) for run in runs[1:]]
                else:
                    left_out.append(f"{stream.name}: it changed while it was watched; compare it once it is complete")
        if not any(result.seconds for result in results):
            why = left_out[-1] if left_out else "none of the recordings is as long as one second"
            raise MediaError(f"nothing to compare: {why}")
        groups = dict.fromkeys((result.group, result.mode) for result in results)
        work = published_work(backend.info.precision)
        comparisons = [summarize([r for r in results if (r.group, r.mode) == group], work) for group in groups]
        return EconomyReport(
            bundle_sha256=bundle.sha256,
            model=bundle.manifest.model.name,
            ran=what_ran(backend.info, None),
            rule=rule,
            lag=LAG,
            work=work,
            comparisons=tuple(comparisons),
            streams=tuple(results),
            gate=self._gate(bundle, backend.info, results, comparisons, rule),
            left_out=tuple(left_out),
        )

    def _watch(self, bundle: Bundle, backend: Backend, stream: Stream, progress: Progress) -> list[StreamRun]:
        """Watch `stream` without economy, then with each of them. Nothing, if it changes meanwhile."""
        from ovavel.eval.economy.runs import recorded_run
        from ovavel.runtime.economy.settings import Economy
        from ovavel.runtime.system.progress import prefixed

        modes: tuple[EconomyMode, ...] = ("off", *dict.fromkeys(self.modes))
        try:
            runs = [
                recorded_run(
                    self.out / "runs",
                    bundle,
                    backend,
                    stream,
                    Economy(mode=mode, budget=self.economy_budget),
                    fusion=self.fusion,
                    progress=prefixed(progress, f"{stream.name}, {mode}: "),
                )
                for mode in modes
            ]
        except MediaError:  # as of one that is deleted
            if stream.changed():
                return []
            raise
        return [] if stream.changed() else runs

    def _gate(
        self,
        bundle: Bundle,
        info: BackendInfo,
        results: list[StreamResult],
        comparisons: list[Comparison],
        rule: str,
    ) -> EconomyGate | None:
        from ovavel.eval.economy.compare import cost
        from ovavel.eval.economy.gate import make_gate
        from ovavel.runtime.bundle.calibration import names_fingerprint
        from ovavel.runtime.economy.settings import Economy
        from ovavel.runtime.economy.work import work_of
        from ovavel.runtime.pipeline.rules.apply import bundle_rule
        from ovavel.runtime.verification.economy import deciding_fingerprint

        judged = [each for each in comparisons if each.mode == "auto"]
        if not judged:
            return None
        work = work_of(bundle.manifest.model.config, info.precision)
        hours = [hour for result in results if result.mode == "auto" for hour in result.hours]
        what = (f"{each.streams} × {each.group}" if each.streams > 1 else each.group for each in judged)
        return make_gate(
            judged,
            Economy(mode="auto", budget=self.economy_budget),
            rule=rule,
            names=names_fingerprint(bundle.vocabulary.names),
            decides=deciding_fingerprint(bundle_rule(bundle, self.fusion), bundle.vocabulary),
            reference=", ".join(what),
            saved=max(0.0, 1 - cost(hours, work)) if work else None,  # audits may take more than is saved
        )


def _print(report: EconomyReport, out: Path) -> None:
    from ovavel.eval.commands.tables import figures_table
    from ovavel.eval.economy.report import COLUMNS, comparison_cells, notes, verdict
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True)
    console.print(one_line(f"{report.ran} Decision rule: {report.rule}."), markup=False)
    console.print(
        figures_table("economy against all pictures, in percent", COLUMNS, map(comparison_cells, report.comparisons))
    )
    for note in notes((each.mode, each.note) for each in report.comparisons):
        console.print(one_line(note), markup=False)
    if report.left_out:
        more = f"; and {len(report.left_out) - 1} more, see economy.json" if len(report.left_out) > 1 else ""
        console.print(one_line(f"left out, in no figure: {report.left_out[0]}{more}"), markup=False)
    if report.gate:
        console.print(one_line(f"economy auto: {verdict(report.gate)}"), style="bold", markup=False)
    console.print(one_line(f"wrote economy.json, economy.html and pictures in {out}"), markup=False)
