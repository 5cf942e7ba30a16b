"""`ovavel bench gpu`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from ovavel.training.models.imagebind.model import ImageBindConfig

__all__ = ["BenchGpu"]


@dataclass(frozen=True, kw_only=True)
class BenchGpu:
    """Benchmark every engine on this machine's NVIDIA GPU, with random full-size weights, in under 8 minutes.

    Examples:
        ovavel bench gpu
        ovavel bench gpu --rows onnxruntime "PyTorch eager fp32" --budget-s 240

    Rows: PyTorch eager, compiled and as CUDA graphs, ONNX Runtime, TensorRT and TensorRT-RTX, in fp32, fp16 and bf16.
    Each runs in its own process: parity with PyTorch, single stream, offline, the largest number of cameras. A row that
    fails or takes too long is reported with the reason, and the others continue. The weights are random and generated
    locally, so no network is needed; give --bundle, --weights and --head to measure your own. Needs PyTorch and the
    extra 'export'. The Markdown and JSON files are named after the device and the date.
    """

    out: Path = Path("docs/benchmarks")
    """Folder for the two files."""
    device: str = "cuda"
    """cuda or cuda:N; cpu is a dry run of the benchmark itself."""
    config: str = "huge"
    """Size of the model to make: huge, tiny, or a JSON file: a bundle's manifest, or the fields of its model.config."""
    bundle: Maybe[Path] = None
    """A bundle to measure instead of random weights, in fp32, fp16 and bf16."""
    weights: Maybe[Path] = None
    """The ImageBind checkpoint of that bundle."""
    head: Maybe[Path] = None
    """The temporal head's checkpoint of that bundle, if it has one."""
    rows: Many[str] = ()
    """Substrings of row names to run; all rows by default."""
    budget_s: Annotated[float, Meta(gt=0, le=86_400)] = 470.0
    """Total seconds, including generating the weights; rows that have not run by then are not measured."""
    row_s: Annotated[float, Meta(gt=0, le=86_400)] = 120.0
    """Seconds for measuring one row."""
    build_s: Annotated[float, Meta(gt=0, le=86_400)] = 150.0
    """Seconds for building the TensorRT plans of one row, before it is measured."""
    windows: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """Windows of single stream."""
    trial_s: Annotated[float, Meta(gt=0, le=3_600)] = 1.0
    """Seconds for which each number of cameras is tried."""
    keep: Maybe[Path] = None
    """Folder for the generated weights and bundle, and for engines, which are kept there for the next run; without it
    they are removed."""

    def run(self) -> int:
        """Measure and write the files. Returns 130 if it was interrupted."""
        import tempfile
        import time
        from contextlib import ExitStack

        from ovavel.export.bundle import need_libraries

        begin_s = time.monotonic()
        if (self.bundle is None) != (self.weights is None):
            raise UsageError("--bundle and --weights go together; give both or neither")
        need_libraries()
        from ovavel.eval.bench import Settings
        from ovavel.export.gpu_bench.matrix import Budget, matrix_rows, run_matrix
        from ovavel.export.gpu_bench.prepared import Prepared, prepare
        from ovavel.export.gpu_bench.report import matrix_markdown, write_matrix
        from ovavel.runtime.system.bars import shown_status
        from ovavel.runtime.system.files import check_report_folder, make_folder
        from ovavel.runtime.system.interrupt import terminated_as_interrupted
        from ovavel.training.models.imagebind.model import read_config
        from ovavel.training.torch_backend.backend import resolve_device

        check_report_folder(self.out, "the report")
        resolve_device(self.device)
        for place in (self.out, self.keep):
            if place:
                make_folder(place)
        with ExitStack() as stack:
            stack.enter_context(terminated_as_interrupted())
            progress = stack.enter_context(shown_status("starting"))

            def in_time(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
                if time.monotonic() - begin_s > self.budget_s:
                    raise UsageError(
                        f"the time budget of {self.budget_s:g} s was used up: {what}; give more with --budget-s, or "
                        "make the bundle once with 'ovavel bundle export' and give it with --bundle and --weights"
                    )
                progress(what, done, total, note)

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovavel-matrix-", dir=_roomy())))
            if self.bundle and self.weights:
                names = " and ".join(path.name for path in (self.weights, self.head) if path)
                prepared = Prepared(
                    bundle=self.bundle, weights=self.weights, head=self.head, description=f"weights of {names}"
                )
                prepared_s = 0.0
            else:
                prepared = prepare(self.keep or folder, _without_text(read_config(self.config)), in_time)
                prepared_s = time.monotonic() - begin_s
            specs = matrix_rows(prepared.weights, prepared.head, wanted=self.rows)
            if not specs:
                raise UsageError(f"no row has a name with {' or '.join(self.rows)}")
            report = run_matrix(
                prepared,
                specs,
                device=self.device,
                budget=Budget(
                    begin_s=begin_s,
                    prepared_s=prepared_s,
                    total_s=self.budget_s,
                    row_s=self.row_s,
                    build_s=self.build_s,
                ),
                settings=Settings(
                    scenarios=("parity", "single", "offline", "live"),
                    windows=self.windows,
                    trial_s=self.trial_s,
                    warm_up_s=10.0,
                ),
                folder=self.keep or folder,
                progress=progress,
            )
        paths = write_matrix(report, self.out)
        print(matrix_markdown(report))
        print(one_line(f"written: {', '.join(map(str, paths))}"))
        return 130 if report.partial else 0


def _without_text(config: ImageBindConfig) -> ImageBindConfig:
    """The same vision and audio with a small text encoder, which windows do not use."""
    from dataclasses import replace

    from ovavel.training.models.imagebind.model import ImageBindConfig as Config

    return replace(config, name=f"{config.name}-random", text=Config.tiny().text)


def _roomy() -> str | None:
    """A folder in memory if there is enough: disks are slow, and everything is read again for each row."""
    import os
    import shutil

    memory = Path("/dev/shm")  # noqa: S108 - a folder of random weights
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return str(memory) if memory.is_dir() and min(shutil.disk_usage(memory).free, free) > 48e9 else None
