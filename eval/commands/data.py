"""`ovavel eval data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.commands.options import Maybe, Workers

if TYPE_CHECKING:
    from ovavel.eval.datasets.check import CheckReport

__all__ = ["Data"]

_FILE = "check-data.json"
_NAMED = 20  # damaged clips that are printed; all are in --out


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Check a labelled data set for media that are missing, unreadable, or of the wrong length or count.

    Examples:
        ovavel eval data --data ovavebench --annotations ovavel-annotations
        ovavel eval data --data ovavebench --out check
        ovavel eval data --data unav100 --dataset unav

    Reads every sound and every frame of OV-AVEBench, or every video of another data set (--dataset), in parallel, and
    prints a table of splits and kinds of damage, and what is there but not read. The exit code is 1 if anything is
    damaged. Other commands skip damaged clips, and count them beside each result.
    """

    dataset: DatasetOptions
    """What to check."""
    out: Maybe[Path] = None
    """Folder for check-data.json with the counts and every damaged clip; created if missing."""
    workers: Workers = None
    """Number of processes that read; as many as cores by default."""

    def run(self) -> int:
        """Check, print a table and write the JSON file."""
        from ovavel.eval.datasets.check import check_data
        from ovavel.runtime.sinks.records import to_json_bytes
        from ovavel.runtime.system.files import atomic_write, report_folder

        file = report_folder(self.out, _FILE) / _FILE if self.out else None
        report = check_data(self.dataset.open(), workers=self.workers)
        _print(report, file)
        if file:
            atomic_write(file, to_json_bytes(report, indent=2) + b"\n")
        return 1 if report.damaged else 0


def _print(report: CheckReport, out: Path | None) -> None:
    from ovavel.eval.commands.clip_counts import clip_counts
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True, markup=False)
    splits = report.splits.values()
    rows = [
        ("annotated", [split.clips for split in splits]),
        ("undamaged", [split.undamaged for split in splits]),
        ("damaged", [split.damaged for split in splits]),
        *((f"  {kind}", [split.kinds.get(kind, 0) for split in splits]) for kind in report.kinds),
    ]
    if report.short_sounds:
        rows.append(("sound below 10 s (padded)", [split.short_sounds for split in splits]))
    console.print(clip_counts(report.splits, rows))
    for note in report.notes:
        console.print(one_line(f"note: {note}"))
    for clip in report.damaged[:_NAMED]:
        for problem in clip.problems:
            console.print(one_line(f"{clip.split}/{clip.category}/{clip.name}: {problem.kind}: {problem.message}"))
    if len(report.damaged) > _NAMED:
        where = one_line(f"all are in {out}") if out else "--out lists all of them"
        console.print(f"… and {len(report.damaged) - _NAMED} more damaged clips; {where}")
    if not report.damaged:
        console.print("nothing is damaged")
