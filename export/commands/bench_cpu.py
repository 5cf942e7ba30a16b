"""`ovavel bench cpu`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta

__all__ = ["BenchCpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCpu:
    """Compare every way to run the encoders on this CPU: speed, accuracy and memory.

    Examples:
        ovavel bench cpu --weights imagebind_huge.pth --out frontier
        ovavel bench cpu --weights imagebind_huge.pth --outliers --out frontier-outliers
        ovavel bench cpu --weights imagebind_huge.pth --precision int8 fp32 --out int8

    Each window goes in turn through PyTorch, OpenVINO, and ONNX Runtime in float32, 16 and 8 bits, with the
    quantization measures added one at a time; ratios are computed per window. 16 and 8 bits are measured in both forms:
    for CPUs with 8-bit dot products, and for every CPU. The heading names this CPU's features: other CPUs have other
    ratios. Also measured: the share of the machine's integer peak that 8 bits reach, the time from a process's start
    to its first result, and where the time of the best candidate goes. OUT receives frontier.json, frontier.md and
    frontier.html. At full size this takes about 20 minutes, 14 GB of memory and, while it runs, 17 GB of disk in OUT;
    with --precision int8 a quarter of that.

    Random weights are easier to quantize than trained ones; --outliers adds what makes trained weights hard (a few
    large channels, hidden units and tokens) before measuring.
    """

    weights: Path
    """ImageBind checkpoint."""
    out: Path
    """Folder for the results; created if missing."""
    config: str = "huge"
    """Size of the model: huge, tiny, or a JSON file: a bundle's manifest, or the fields of its model.config."""
    outliers: bool = False
    """Add outliers to the weights first."""
    windows: Annotated[int, Meta(ge=1, le=1_000_000)] = 24
    """Number of windows that each candidate runs."""
    threads: Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]] = None
    """Cores to use; by default all that this process may use."""
    precision: Many[Precision] = ()
    """Measure PyTorch in float32 and what a bundle can contain in these precisions; by default everything."""

    def run(self) -> int:
        """Measure, print the table and write the files."""
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        with terminated_as_interrupted():
            return self._run()

    def _run(self) -> int:
        from tempfile import TemporaryDirectory

        import msgspec

        from ovavel.export.bundle import need_libraries
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.system.files import atomic_write, check_report_folder, output_folder

        check_report_folder(self.out, "frontier.json")
        if self.windows < 2:
            raise UsageError(f"--windows must be at least 2, not {self.windows}")
        need_libraries()
        from ovavel.export.cpu_bench.candidates import chosen
        from ovavel.export.cpu_bench.frontier import measure_frontier
        from ovavel.export.cpu_bench.report import html, markdown
        from ovavel.training.models.imagebind.model import read_config

        config = read_config(self.config)
        with (
            output_folder(self.out),
            TemporaryDirectory(prefix=".frontier.", dir=self.out) as folder,
            shown_progress() as progress,
        ):
            found = measure_frontier(
                self.weights,
                Path(folder),
                config=config,
                outliers=self.outliers,
                windows=self.windows,
                threads=self.threads,
                candidates=chosen(self.precision),
                progress=progress,
            )
            atomic_write(self.out / "frontier.json", msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
            atomic_write(self.out / "frontier.md", markdown(found).encode())
            atomic_write(self.out / "frontier.html", html(found))
        print(markdown(found), end="")
        return 0
