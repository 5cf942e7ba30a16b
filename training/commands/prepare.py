"""`ovavel train prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovavel.runtime.commands.options import Workers
from ovavel.runtime.reporting.text import one_line

if TYPE_CHECKING:
    from ovavel.training.prepare import PrepareReport

__all__ = ["Prepare"]

_NAMED = 20  # failed clips that are printed; all are in the report


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Cut raw videos into clips of ten frames and one sound, as OV-AVEBench has them.

    Examples:
        ovavel train prepare --videos videos --annotations ovavel-annotations --out ovavebench

    Each annotated video is found as <video>.<any suffix> in --videos or a folder below it. Its first ten seconds become
    ten JPEG images (the middle frame of each second, in the video's own size) and one WAV file; the annotation
    files are copied beside them. Run the command again after an interruption, even kill -9, or after more downloads:
    existing clips are kept, and the files are the same as those of an uninterrupted run. Of a video
    shorter than ten seconds the last frame stays, in silence. Videos that are missing, unreadable or empty are skipped
    and listed in OUT/prepare.json. The exit code is 1 if no clip could be made.
    """

    videos: Path
    """Folder of the raw videos, in any container that FFmpeg reads."""
    annotations: Path
    """Folder of the published annotation files."""
    out: Path
    """Folder for the dataset."""
    rate: Literal[16_000, 48_000] = 16_000
    """Sample rate of the WAV files in Hz: 16000 as in the published media, which is all that ImageBind hears; 48000 for
    CLAP, which hears up to 14 kHz."""
    workers: Workers = None
    """Number of processes that cut; as many as cores by default."""

    def run(self) -> int:
        """Prepare, and print a table."""
        from ovavel.training.prepare import prepare

        report, fresh = prepare(self.videos, self.out, self.annotations, rate_hz=self.rate, workers=self.workers)
        _print(report, fresh, self.out)
        return 0 if any(split.prepared for split in report.splits.values()) else 1


def _print(report: PrepareReport, fresh: int, out: Path) -> None:
    from ovavel.eval.commands.options import clip_counts
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.training.prepare import NO_FILE, REPORT

    console = OutputConsole(highlight=False, soft_wrap=True, markup=False)
    splits = report.splits.values()
    rows = [
        ("annotated", [split.clips for split in splits]),
        ("prepared", [split.prepared for split in splits]),
        ("  shorter than 10 s (padded)", [split.short for split in splits]),
        *(
            (f"  {kind}", [split.failed.get(kind, 0) for split in splits])
            for kind in sorted({kind for split in splits for kind in split.failed})
        ),
    ]
    console.print(clip_counts(report.splits, rows))
    failures = [failure for failure in report.failures if failure.kind != NO_FILE]  # for those the count is enough
    for failure in failures[:_NAMED]:
        console.print(one_line(f"{failure.split}/{failure.name}: {failure.kind}: {failure.message}"), markup=False)
    if len(failures) > _NAMED:
        console.print(f"… and {len(failures) - _NAMED} more")
    if report.side_files:
        console.print(f"{report.side_files} side files of videos (._*) were not read")
    if report.losses:
        clips = len({(loss.split, loss.name) for loss in report.losses})
        console.print(f"{clips} of the prepared clips lack some of their sound or pictures: see 'losses' in the report")
    prepared = sum(split.prepared for split in splits)
    report_name = one_line(str(out / REPORT))
    console.print(
        f"{fresh} made now, {prepared - fresh} kept; {report_name} lists every clip that failed", markup=False
    )
