"""`ovavel bench run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import BackendsFlag, DeviceOptions, Many, Maybe, check_bundle_backends
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Meta

__all__ = ["Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Benchmark a bundle on this machine in MLPerf's scenarios, stage by stage, optionally against PyTorch.

    Examples:
        ovavel bench run --bundle imagebind
        ovavel bench run --bundle imagebind --precision fp32 int8 --scenarios single live
        ovavel bench run clip.mp4 --bundle imagebind --weights imagebind_huge.pth --head head.safetensors --out bench
        ovavel bench run --bundle clip-clap --beside imagebind --scenarios single offline

    Scenarios: single (one window after the other: p50, p90, p99 of each stage), offline (windows per second at the best
    batch size), live (cameras that each send one window per second and do not wait: how many can run with 99 % of the
    decisions within the deadline) and capture (from a camera that stamps its frames to the decision). parity compares
    each row with the bundle's golden outputs. Rows are warmed up until they are steady; the output states the rule and
    whether it was met. With --weights, PyTorch is measured in the same run, on the same device and threads, and the
    rows take turns window by window. So do those of other bundles, of any encoders, with --beside. The floor is the
    least time the device needs, from rates measured in the run. Ctrl-C ends the run early and shows what was measured
    until then.
    """

    recording: Positional[Maybe[str]] = None
    """Recording to take windows from; without it, a clip of noise is used."""
    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    weights: Many[Path] = ()
    """What the bundle was made from, ImageBind's checkpoint or the folders of CLIP and CLAP: also runs PyTorch and
    shows the speed-up of the bundle."""
    head: Maybe[Path] = None
    """Checkpoint of the temporal head, for PyTorch; required if the bundle has a trained head."""
    beside: Many[Path] = ()
    """Other bundles to measure in the same run, with the same backends, precisions and media: how many times as long a
    window takes them, and how many times as much memory."""
    backend: BackendsFlag = ("onnxruntime",)
    precision: Many[str] = ()
    """Precisions of vision and audio, one row each; by default the one that the bundle runs in."""
    references: tuple[str, ...] = ("eager", "compile", "bf16", "fp16")
    """PyTorch's rows: eager, compile or graph (CUDA), with +bf16 or +fp16 (autocast; with +cast the weights are cast
    once). A mode that is unavailable is reported as "not measured"."""
    scenarios: tuple[Literal["parity", "single", "offline", "live", "capture"], ...] = (
        *("single", "offline"),
        *("live", "capture"),
    )
    """What to measure. Live and capture measure the bundle's rows only; parity takes up to a minute per row."""
    place: DeviceOptions = field(default_factory=DeviceOptions)
    """Where all rows run."""
    windows: Maybe[Annotated[int, Meta(ge=1, le=1_000_000)]] = None
    """How many windows to time one by one. By default 30, or as many as take 10 s, 1000 at most; p99 is meaningful from
    100 on. A short recording is repeated."""
    deadline_ms: Annotated[float, Meta(gt=0, le=3_600_000)] = 1000.0
    """Live: longest time from a window to its decision, queueing included."""
    trial_s: Annotated[float, Meta(gt=0, le=3_600)] = 5.0
    """Live: seconds for which each number of cameras is tried."""
    most_cameras: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    """Live: the largest number of cameras to try."""
    largest_batch: Annotated[int, Meta(ge=1, le=4_096)] = 64
    """Offline: the largest batch to try."""
    capture_windows: Annotated[int, Meta(ge=1, le=86_400)] = 10
    """Capture: number of windows, each one second long."""
    warm_up_s: Annotated[float, Meta(ge=0, le=3_600)] = 20.0
    """Limit for the warm-up of a row that does not become steady."""
    out: Maybe[Path] = None
    """Folder for bench.json (all figures, raw durations and a description of the machine; see 'ovavel bench compare'),
    bench.md and bench.html; created if missing."""

    def run(self) -> int:
        """Measure, print tables and write the files. Returns 130 if it was interrupted."""
        import msgspec

        from ovavel.eval.bench import Settings, run_bench
        from ovavel.eval.bench.html import report_page
        from ovavel.eval.bench.rows import own_rows, reference_rows
        from ovavel.eval.bench.tables import markdown, print_report
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.system.bars import shown_status
        from ovavel.runtime.system.files import atomic_write, report_folder
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        check_bundle_backends(*self.backend)
        settings = Settings(
            scenarios=self.scenarios,
            windows=self.windows,
            warm_up_s=self.warm_up_s,
            largest_batch=self.largest_batch,
            deadline_ms=self.deadline_ms,
            trial_s=self.trial_s,
            most_cameras=self.most_cameras,
            capture_windows=self.capture_windows,
            rates=True,
        )
        rows = own_rows(self.backend, self.precision)
        for other in self.beside:
            rows += own_rows(self.backend, self.precision, beside=Bundle.open(other))
        if len({row.name for row in rows}) < len(rows):
            raise UsageError("two bundles of --beside have one name; rename a folder, for rows are called after it")
        if self.weights:
            rows += reference_rows(self.references, self.weights, self.head)
        if self.out:
            report_folder(self.out, "bench.json")
        with terminated_as_interrupted(), shown_status("opening the bundle") as progress:
            report = run_bench(
                Bundle.open(self.bundle),
                rows=rows,
                device=self.place.device,
                threads=self.place.threads,
                media=self.recording,
                settings=settings,
                progress=progress,
            )
        written = []
        if self.out:
            contents = {
                "bench.json": msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n",
                "bench.md": markdown(report).encode(),
                "bench.html": report_page(report),
            }
            written = [self.out / name for name in contents]
            for path, data in zip(written, contents.values(), strict=True):
                atomic_write(path, data)
        console = OutputConsole(highlight=False, soft_wrap=True)
        print_report(report, console)
        if written:
            console.print(one_line(f"wrote {', '.join(map(str, written))}"), markup=False)
        return 130 if report.partial else 0
