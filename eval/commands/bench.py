"""`ovavel bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.eval.bench import BenchReport

__all__ = ["Bench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Time a bundle on this machine, stage by stage, and against PyTorch on request.

    Examples:
        ovavel bench --bundle imagebind
        ovavel bench --bundle imagebind --weights imagebind_huge.pth --input clip.mp4 --out bench.json

    Prints p50, p95 and p99 of each stage after warm-up, and the most memory it took. With --weights each window also
    goes through PyTorch (eager, fp32) in the same run, on the same device and threads.
    """

    bundle: Path
    """Folder written by 'ovavel export bundle'."""
    weights: Path | None = None
    """ImageBind checkpoint the bundle was made from: runs PyTorch too and tells how many times faster the bundle is."""
    head: Path | None = None
    """Checkpoint of the temporal head, for PyTorch; needed where the bundle has a trained head."""
    device: str = "auto"
    """Where the encoders run: cpu, cuda, cuda:N, or auto. What is asked for is what runs, or an error."""
    threads: int | None = None
    """Threads of the encoders on a CPU; as many as cores by default."""
    windows: int = 30
    """How many windows to time. A short recording is gone through again."""
    input: str | None = None
    """Recording to take windows from; without it, a clip of noise is made."""
    out: Path | None = None
    """JSON file for all figures and a description of the machine."""

    def run(self) -> int:
        """Measure, print a table and write the JSON file."""
        import msgspec
        from rich.console import Console

        from ovavel.eval.bench import run_bench
        from ovavel.runtime.bundle import Bundle
        from ovavel.runtime.console import OutputConsole
        from ovavel.runtime.files import atomic_write

        with Console(stderr=True).status("opening the bundle") as status:
            report = run_bench(
                Bundle.open(self.bundle),
                weights=self.weights,
                head=self.head,
                device=self.device,
                threads=self.threads,
                windows=self.windows,
                media=self.input,
                tell=status.update,
            )
        _print(report, OutputConsole(highlight=False, soft_wrap=True))
        if self.out:
            data = msgspec.json.format(msgspec.json.encode(report), indent=2)
            atomic_write(self.out, data + b"\n")
        return 0


def _print(report: BenchReport, console: Console) -> None:
    from rich.table import Table

    machine, reports = report.machine, [report.runtime, *([report.pytorch] if report.pytorch else [])]
    console.print(f"{report.model} on {machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB; {machine.system}")
    for gpu in machine.gpus:
        console.print(gpu)
    table = Table(title=f"milliseconds a window, {report.windows} windows of {report.media}")
    table.add_column("stage")
    for each in reports:
        precisions = ", ".join(sorted(set(each.backend.precision.values())))
        title = f"{each.backend.name}, {precisions}\n{each.backend.device}"
        table.add_column(f"{title}\np50 / p95 / p99", justify="right", no_wrap=True)
    if report.ratios:
        table.add_column("times faster\n\n(p5 to p95)", justify="right", no_wrap=True)
    for stage in report.runtime.stages_ms:
        cells = [" / ".join(f"{value:.1f}" for value in each.stages_ms[stage]) for each in reports]
        if report.ratios:
            ratio = report.ratios.get(stage)
            cells.append(f"{ratio.of_medians:.2f} ({ratio.p5:.2f} to {ratio.p95:.2f})" if ratio else "")
        table.add_row(stage, *cells)
    console.print(table)
    info = report.runtime.backend
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    console.print(f"{info.provider} with {info.threads} threads, {versions}")
    console.print(f"resident memory: at most {report.peak_memory_mb:.0f} MB")
