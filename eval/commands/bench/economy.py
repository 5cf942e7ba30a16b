"""`ovavel bench economy`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import EngineOptions, Many, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from ovavel.eval.economy.costs import Film
    from ovavel.eval.economy.held import HeldReport
    from ovavel.runtime.backends import Backend
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["BenchEconomy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEconomy:
    """Measure how many cameras one encoder holds live, with economy and without.

    Examples:
        ovavel bench economy --bundle imagebind --deciding demo-out/bundle --out held
        ovavel bench economy camera.mp4 --bundle imagebind --days --seconds 120 --out held

    Each stream is watched by three sessions, without economy, with exact and with auto, which take turns second by
    second: days of the demo world (--days) and recordings, looped. Reports the time of a second, the pictures encoded,
    and the time of a decision for which sound wakes vision. The seconds are then replayed as those of many cameras,
    from places of their own, through one encoder, at which they take turns: "cameras held" is how many lose no
    window.

    Which pictures are needed is up to the weights: those that know nothing take any sound for background, or none. So a
    bundle that knows the streams can decide (--deciding), while --bundle encodes the same pictures and sounds and is
    timed. Writes cameras.json and cameras.svg.
    """

    recordings: Positional[Many[Path]] = ()
    """Recordings to loop; the first five minutes of each."""
    bundle: Path
    """Folder written by 'ovavel bundle export': what is timed."""
    deciding: Maybe[Path] = None
    """Bundle that decides in place of --bundle, with encoders of the same input; its time is left out.
    For engines that encode one sense after the other, as on a CPU."""
    days: tuple[Literal["sparse", "dense", "worst"], ...] = ("sparse", "worst")
    """Days of the demo world: sparse has 20 events an hour, dense 120, and in worst something always moves and
    sounds."""
    seconds: Annotated[int, Meta(ge=10, le=3600)] = 300
    """How long each stream is watched, from six in the morning of a day. All of it is made before, and kept in memory:
    about 1 GB for an hour."""
    fusion: str = "agreement"
    """Decision rule, as for 'ovavel live'."""
    clock: Literal["wall", "cpu"] = "wall"
    """What a second takes: its time on the wall clock, or that of all cores divided by their number, as if they were
    idle and shared it evenly: for a machine that is busy with other work. Give --threads 1 with it, as threads that
    wait for each other take time, too."""
    out: Path
    """Folder for the results; created if missing."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Measure, simulate, print and write."""
        from ovavel.eval.economy.held import held_json, held_svg
        from ovavel.runtime.system.files import atomic_write, report_folder

        if not (self.days or self.recordings):
            raise UsageError("measure what? Give --days sparse worst, or recordings")
        report_folder(self.out, "cameras.json")
        bundle = self.engine.open_bundle(self.bundle)
        deciding = self.engine.open_bundle(self.deciding) if self.deciding else None
        report = self._measure(bundle, deciding)
        atomic_write(self.out / "cameras.json", held_json(report))
        atomic_write(self.out / "cameras.svg", held_svg(report.streams))
        _print(report, self.out)
        return 0

    def _measure(self, bundle: Bundle, deciding: Bundle | None) -> HeldReport:
        import os
        from contextlib import ExitStack, closing
        from dataclasses import asdict

        from ovavel.eval.bench.machine import describe_machine
        from ovavel.eval.datasets.encode import what_ran
        from ovavel.eval.economy.costs import Twin, measure_costs
        from ovavel.eval.economy.held import HeldReport, stream_costs
        from ovavel.runtime.pipeline.rules.apply import bundle_rule
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.system.progress import prefixed
        from ovavel.runtime.verification.open import open_compared

        machine, before = describe_machine(), os.getloadavg()[0]
        rule = bundle_rule(deciding or bundle, self.fusion).name
        with ExitStack() as opened:
            timed = opened.enter_context(closing(open_compared(bundle, **self.engine.backend_options)))
            backend: Backend = timed
            if deciding:
                options = self.engine.backend_options | {"threads": 1, "precision": None}
                decides = opened.enter_context(closing(open_compared(deciding, **options)))
                backend = Twin(decides, timed, bundle.vocabulary.embeddings)
            progress = opened.enter_context(rated_bar("s"))
            found = []
            for film in self._films(backend):
                reports = prefixed(progress, f"{film.name}: ")
                measured = measure_costs(
                    deciding or bundle, backend, film, self.seconds, fusion=self.fusion, progress=reports
                )
                found += [
                    stream_costs(film.name, mode, costs, clock=self.clock, cores=machine.cores)
                    for mode, costs in measured.items()
                ]
        decided = deciding or bundle
        return HeldReport(
            bundle_sha256=bundle.sha256,
            model=bundle.manifest.model.name,
            ran=what_ran(timed.info, None),
            decided=f"{decided.manifest.model.name}, {len(decided.vocabulary.names)} names",
            rule=rule,
            clock=self.clock,
            load=(before, os.getloadavg()[0]),
            machine=asdict(machine),
            streams=tuple(found),
        )

    def _films(self, backend: Backend) -> Iterator[Film]:
        from ovavel.eval.economy.costs import day_film, looped_film
        from ovavel.runtime.commands.localize import find_media
        from ovavel.runtime.pipeline.preprocess import sound_rate

        recordings = find_media(self.recordings) if self.recordings else []
        for kind in dict.fromkeys(self.days):
            yield day_film(kind, 0, self.seconds)
        for path in recordings:
            yield looped_film(path, self.seconds, sound_rate(backend.encoders))


def _print(report: HeldReport, out: Path) -> None:
    from ovavel.eval.commands.tables import figures_table
    from ovavel.eval.economy.held import HELD_COLUMNS, held_cells
    from ovavel.eval.economy.report import notes
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True)
    console.print(one_line(f"{report.ran} Decided by {report.decided}; rule: {report.rule}."), markup=False)
    console.print(figures_table("a second, and cameras of one encoder", HELD_COLUMNS, map(held_cells, report.streams)))
    for note in notes((each.mode, each.costs.note) for each in report.streams):
        console.print(one_line(note), markup=False)
    console.print(f"{report.clock} clock, load {report.load[0]:.1f} before, {report.load[1]:.1f} after", markup=False)
    console.print(one_line(f"wrote cameras.json and cameras.svg in {out}"), markup=False)
