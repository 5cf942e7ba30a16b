"""`ovavel bench compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ovavel.runtime.commands.options import Maybe

if TYPE_CHECKING:
    from ovavel.eval.bench.compare import Change, Comparison

__all__ = ["Compare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Report what changed between two runs of 'ovavel bench run' beyond noise.

    Example:
        ovavel bench run --bundle imagebind --scenarios single --windows 200 --out before
        ovavel bench run --bundle changed   --scenarios single --windows 200 --out after
        ovavel bench compare before after

    Exits with 1 if a row became slower beyond noise, and with 0 otherwise. On a CPU each window is compared with a
    yardstick that ran just before it, so that a busier or hotter machine in one of the runs does not matter.
    Use at least 200 windows, the same threads and the same machine for both runs.
    """

    before: Positional[Path]
    """Folder of 'ovavel bench run --out', or its bench.json: the run before the change."""
    after: Positional[Path]
    """The run after the change, likewise."""
    out: Maybe[Path] = None
    """Folder for compare.json; created if missing."""

    def run(self) -> int:
        """Compare and print. Returns 1 for a slow-down."""
        import msgspec

        from ovavel.eval.bench.compare import compare
        from ovavel.eval.bench.read import read_report
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.system.files import atomic_write, report_folder

        if self.out:
            report_folder(self.out, "compare.json")
        comparison = compare(read_report(self.before), read_report(self.after))
        if self.out:
            atomic_write(
                self.out / "compare.json", msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"
            )
        console = OutputConsole(highlight=False, soft_wrap=True)
        for line in _lines(comparison):
            console.print(line, markup=False)
        return int(comparison.slower)


def _lines(comparison: Comparison) -> list[str]:
    from ovavel.eval.bench.compare import COMPARE_RULE

    words = {"slower": "SLOWER beyond noise", "faster": "faster beyond noise", "same": "no change beyond noise"}
    lines = [f"differs between the runs: {what}" for what in comparison.unlike]
    lines += [f"caution: {what}" for what in comparison.cautions]
    for row in comparison.rows:
        lines.append(f"{row.name}: {words[row.verdict]}")
        lines.append(f"  window, on the clock       {_change_text(row.clock)}")
        if row.processor and row.both:
            lines.append(f"  window, in processor time  {_change_text(row.processor)}")
            lines.append(f"  window, mean of both       {_change_text(row.both)}")
        for name, (before, after) in {"p50, ms": row.p50_ms, "p99, ms": row.p99_ms, **row.others}.items():
            lines.append(f"  {name:<25}  {before:.4g} → {after:.4g}, as measured")
        lines += [f"  {stage:<25}  {_change_text(change)}" for stage, change in row.stages.items()]
    return [*lines, f"({COMPARE_RULE}. Stages and other figures have no verdict)"]


def _change_text(change: Change) -> str:
    return f"{change.share:+.1%} ({change.low:+.1%} to {change.high:+.1%})"
