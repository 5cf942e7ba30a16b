"""`ovavel bundle engine`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ovavel.runtime.bundle.graphs import DECIDING, Graph
from ovavel.runtime.commands.options import Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from ovavel.runtime.backends.tensorrt.cuda import Cuda
    from ovavel.runtime.backends.tensorrt.plan import BuildOptions
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["Engine"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Build a bundle's TensorRT engines ahead of time.

    Examples:
        ovavel bundle engine --bundle imagebind --precision fp16               # for the GPU of this machine
        ovavel bundle engine --bundle imagebind --library tensorrt-rtx --compute-capability 8.9 --out engines   # no GPU

    live and localize with --backend tensorrt or tensorrt-rtx build their engines on first use; this command builds them
    in advance, so that the first start is fast. An engine is for one version of its library and one GPU model
    (TensorRT) or compute capability (TensorRT-RTX). To use engines from --out, copy their folders to
    ~/.cache/ovavel/engines on the machine that runs them. Existing engines are kept, and Ctrl-C leaves no incomplete
    files. On a machine with a GPU, the engines are then compared with the golden outputs in the bundle; if they
    disagree with PyTorch, the exit code is 1.
    """

    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    library: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt"
    """TensorRT, for every recent NVIDIA GPU, or TensorRT-RTX, for GeForce and RTX GPUs."""
    precision: Maybe[str] = None
    """Precision of vision and audio, if the bundle has it; by default the bundle's own choice."""
    graphs: tuple[Graph, ...] = DECIDING
    """Which graphs to build."""
    batch: tuple[Annotated[int, Meta(ge=1, le=4_096)], ...] = (1, 4, 16)
    """Batch sizes to optimize for, in windows; other sizes are composed of these."""
    workspace_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 4096
    """Scratch memory on the GPU that a layer may use."""
    compute_capability: Maybe[str] = None
    """Compute capability of the GPU to build for if it is not in this machine, e.g. 8.9; TensorRT-RTX only."""
    device: str = "auto"
    """The GPU to build on and for: cuda, or cuda:N."""
    out: Maybe[Path] = None
    """Folder for the engines; by default the cache that live and localize use."""
    overwrite: bool = False
    """Rebuild existing engines."""

    def run(self) -> int:
        """Build the engines and print their size, build time and precision."""
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        if not self.batch or min(self.batch) < 1:
            raise UsageError(f"--batch takes numbers of at least 1, not {' '.join(map(str, self.batch)) or 'none'}")
        if self.compute_capability and self.library == "tensorrt":
            raise UsageError(
                "TensorRT measures on the GPU that it builds for; --compute-capability is for --library tensorrt-rtx"
            )
        with terminated_as_interrupted():
            return self._build()

    def _build(self) -> int:
        from ovavel.runtime.backends.tensorrt.cache import engines_folder
        from ovavel.runtime.backends.tensorrt.engines import provide_engines
        from ovavel.runtime.backends.tensorrt.library import load_library
        from ovavel.runtime.backends.tensorrt.plan import BuildOptions
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.system.bars import shown_progress

        library = load_library(self.library)
        cuda = None if self.compute_capability else self._gpu()
        bundle = Bundle.open(self.bundle)
        options = BuildOptions(batches=tuple(sorted(set(self.batch))), workspace_mb=self.workspace_mb)
        with shown_progress() as progress:
            provided = provide_engines(
                bundle,
                library,
                {graph: bundle.precision(graph, self.library, self.precision) for graph in self.graphs},
                cuda=cuda,
                compute_capability=self.compute_capability,
                options=options,
                root=self.out or engines_folder(),
                overwrite=self.overwrite,
                progress=progress,
            )
        for graph, each in provided.items():
            made, precision = each.as_built(), each.engine.made_for.number_format
            products = f"{made.in_precision} of {made.products} matrix products"
            done = f"built in {each.engine.build_s:.0f} s" if each.built else "already built"
            size = f"{each.engine.plan.bytes / 1e6:.0f} MB"
            folder = one_line(str(each.folder))
            print(f"{graph}: {size}, {done}, {products} in {precision} ({each.engine.evidence.read_from}): {folder}")
        return self._compare(bundle, options) if cuda else 0

    def _compare(self, bundle: Bundle, options: BuildOptions) -> int:
        """Compare the engines with the bundle's golden outputs, which needs a GPU."""
        from ovavel.runtime.backends import open_backend
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.verification.gates import gate_text
        from ovavel.runtime.verification.open import compare_with_pytorch

        with shown_progress() as progress:
            backend = open_backend(
                bundle,
                name=self.library,
                device=self.device,
                graphs=self.graphs,
                precision=self.precision,
                options=options,
                engines=self.out,
            )
            try:
                gate = compare_with_pytorch(bundle, backend, progress)
                if self.library == "tensorrt-rtx":
                    backend.warm_up()  # compiles every batch size for this GPU and caches the result
            finally:
                backend.close()
        print(one_line(f"{self.library} on {backend.info.device}: {gate_text(gate, here=True)}"))
        return 0 if gate is None or gate.passed else 1

    def _gpu(self) -> Cuda:
        from ovavel.runtime.backends.tensorrt.backend import gpu_index
        from ovavel.runtime.backends.tensorrt.cuda import Cuda
        from ovavel.runtime.errors import DeviceError

        try:
            return Cuda(self.library, gpu_index(self.device, self.library))
        except DeviceError as error:
            elsewhere = "" if self.library == "tensorrt" else "; to build for another machine give --compute-capability"
            raise DeviceError(f"{error}{elsewhere}") from error
