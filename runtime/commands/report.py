"""`ovavel report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ovavel.runtime.commands.options import Maybe, Where
from ovavel.runtime.errors import InputError

__all__ = ["Report"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Sum up a folder of results: recordings done and failed, events by label, losses, hours and rates.

    Example:
        ovavel localize recordings/ --bundle imagebind --out results --shard 1/2
        ovavel report results

    Writes report.html, a page that needs nothing else, and report.json. Results need not be complete: while recordings
    are still localized, it shows what is done so far.
    """

    folder: Positional[Where]
    """Folder of 'ovavel localize --out', or its prefix in object storage."""
    out: Maybe[Where] = None
    """Place for report.html and report.json; that of the results by default."""

    def run(self) -> int:
        """Read, print a summary, and write both files."""
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.reporting.text import one_line, shown_name
        from ovavel.runtime.scale.objects import open_place
        from ovavel.runtime.scale.report import read_folder, to_html, to_json
        from ovavel.runtime.system.files import report_folder

        if isinstance(self.folder, Path) and not self.folder.is_dir():
            raise InputError(
                f"there is no folder {self.folder}; name the one that was given to 'ovavel localize --out'"
            )
        out = report_folder(self.out, "report.json") if isinstance(self.out, Path) else self.out or self.folder
        report = read_folder(self.folder)
        place, page = (
            open_place(out),
            to_html(report, f"Results in {_name(self.folder)}", links=_same(out, self.folder)),
        )
        place.write("report.html", page)
        place.write("report.json", to_json(report))
        console = OutputConsole(highlight=False, soft_wrap=True)
        console.print(
            f"{report.done} recordings done, {len(report.failed)} failed; {report.hours:.2f} hours, "
            f"{report.events} events, {report.events_per_hour:.2f} an hour",
            markup=False,
        )
        for each in report.labels[:_SHOWN]:
            console.print(f"  {each.events} × {shown_name(each.label)}, {each.duration_s:.0f} s", markup=False)
        for row in report.failed[:_SHOWN]:
            console.print(f"  failed: {one_line(f'{row.recording}: {row.cause}')}", markup=False)
        console.print(f"wrote {shown_name(place.shown('report.html'))} and report.json", markup=False)
        return 0


def _name(where: Path | str) -> str:
    from ovavel.runtime.reporting.text import shown_name

    return shown_name(where.rstrip("/").rpartition("/")[2] if isinstance(where, str) else where.resolve().name)


def _same(one: Path | str, other: Path | str) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return str(one).rstrip("/") == str(other).rstrip("/")
