"""`ovavel eval data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.commands.options import Maybe, Workers
from ovavel.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovavel.eval.datasets.check import CheckReport
    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.eval.datasets.seen_heard import SeenHeard
    from ovavel.runtime.reporting.console import OutputConsole

__all__ = ["Data"]

_FILE = "check-data.json"
_NAMED = 20  # damaged clips that are printed; all are in --out


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Check a labelled data set for media that are missing, unreadable, or of the wrong length or count.

    Examples:
        ovavel eval data --data ovavebench --annotations ovavel-annotations
        ovavel eval data --data ovavebench --out check
        ovavel eval data --data ovavebench --vggsounder vggsounder.csv --scores report/ovave-test.json
        ovavel eval data --data unav100 --dataset unav

    Reads every sound and every frame of OV-AVEBench, or every video of another data set (--dataset), in parallel, and
    prints a table of splits and kinds of damage, and what is there but not read. The exit code is 1 if anything is
    damaged. Other commands skip damaged clips, and count them beside each result.

    With --vggsounder, it also counts how many clips with an event VGGSounder calls both seen and heard, only one of
    them, or neither. With --scores as well, the scores of the first are shown beside those of the others.
    """

    dataset: DatasetOptions
    """What to check."""
    vggsounder: Maybe[Path] = None
    """VGGSounder's vggsounder.csv, to compare OV-AVEBench's events with; it does not come with ovavel."""
    scores: Maybe[Path] = None
    """ovave-SPLIT.json of 'ovavel eval score --out', to compare the scores of clips that are both seen and heard with
    those of the others."""
    out: Maybe[Path] = None
    """Folder for check-data.json with the counts and every damaged clip; created if missing."""
    workers: Workers = None
    """Number of processes that read; as many as cores by default."""

    def run(self) -> int:
        """Check, print a table and write the JSON file."""
        from msgspec.structs import replace

        from ovavel.eval.datasets.check import check_data
        from ovavel.runtime.sinks.as_json import to_json_bytes
        from ovavel.runtime.system.files import atomic_write, report_folder

        if self.vggsounder and self.dataset.dataset != "ov-avebench":
            raise UsageError(
                f"--vggsounder is for OV-AVEBench, which is cut from its videos, not for {self.dataset.dataset}"
            )
        if self.scores and not self.vggsounder:
            raise UsageError("--scores is compared with VGGSounder's labels: give --vggsounder as well")
        file = report_folder(self.out, _FILE) / _FILE if self.out else None
        dataset = self.dataset.open()
        seen_heard = _seen_heard(dataset, self.vggsounder, self.scores) if self.vggsounder else None
        report = replace(check_data(dataset, workers=self.workers), seen_heard=seen_heard)
        _print(report, file)
        if file:
            atomic_write(file, to_json_bytes(report, indent=2) + b"\n")
        return 1 if report.damaged else 0


def _seen_heard(dataset: Dataset, labels: Path, scores: Path | None) -> SeenHeard:
    from msgspec.structs import replace

    from ovavel.eval.datasets.readers.vggsounder import read_vggsounder
    from ovavel.eval.datasets.seen_heard import compare, score_groups

    found, groups = compare(dataset, read_vggsounder(labels), labels)
    if scores:
        scored, means = score_groups(scores, dataset, groups)
        found = replace(found, scored=scored, scores=means)
    return found


def _print_seen_heard(found: SeenHeard, console: OutputConsole) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.commands.options import clip_counts
    from ovavel.eval.datasets.seen_heard import COMPARED, LEFT_OUT
    from ovavel.runtime.reporting.text import one_line

    splits = found.splits.values()
    rows = [
        ("with an event", [sum(split.values()) for split in splits]),
        *((f"  {group}", [split[group] for split in splits]) for group in LEFT_OUT),
        ("compared", [sum(split[group] for group in COMPARED) for split in splits]),
        *((f"  {group}", [split[group] for split in splits]) for group in COMPARED),
    ]
    console.print(clip_counts(found.splits, rows, title="clips in VGGSounder"))
    if found.unmatched:
        names = ", ".join(f"{name} ({count})" for name, count in found.unmatched.items())
        console.print(one_line(f"classes that VGGSounder does not have, with clips left out: {names}"))
    if not found.scored:
        return
    table = Table("", "clips", "Acc", "Seg", "Eve", "Avg", title=Text(f"scores: {one_line(found.scored)}"))
    for column in table.columns[1:]:
        column.justify = "right"
    for group, means in found.scores.items():
        figures = (means.acc, means.seg, means.eve, means.avg)
        table.add_row(group, str(means.clips), *(f"{100 * value:.1f}" for value in figures))
    console.print(table)


def _print(report: CheckReport, out: Path | None) -> None:
    from ovavel.eval.commands.options import clip_counts
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
    if report.seen_heard:
        _print_seen_heard(report.seen_heard, console)
    for clip in report.damaged[:_NAMED]:
        for problem in clip.problems:
            console.print(one_line(f"{clip.split}/{clip.category}/{clip.name}: {problem.kind}: {problem.message}"))
    if len(report.damaged) > _NAMED:
        where = one_line(f"all are in {out}") if out else "--out lists all of them"
        console.print(f"… and {len(report.damaged) - _NAMED} more damaged clips; {where}")
    if not report.damaged:
        console.print("nothing is damaged")
