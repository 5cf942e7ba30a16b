"""TensorRT and TensorRT-RTX backend: one engine and one CUDA stream per graph."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovavel.runtime.backends import BackendInfo, BuiltEngine
from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.backends.tensorrt.cache import Provided, engines_folder
from ovavel.runtime.backends.tensorrt.cuda import Cuda
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import LibraryName, load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.backends.tensorrt.runner import EngineRunner
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS, Graph
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.system.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["TensorRTBackend", "gpu_index", "open_engines"]


def gpu_index(device: str, backend: str) -> int:
    """Return the GPU number for `device`: 0 for "auto" and "cuda", N for "cuda:N".

    Raises:
        DeviceError: `device` is not a GPU.
    """
    match = re.fullmatch(r"auto|cuda(?::(\d{1,3}))?", device)
    if not match:
        raise DeviceError(
            f"the backend {backend} runs only on NVIDIA GPUs (cuda or cuda:N), not on {device!r}; "
            "use --backend onnxruntime instead"
        )
    return int(match[1] or 0)


def open_engines(
    name: LibraryName,
    bundle: Bundle,
    device: str,
    graphs: Sequence[Graph],
    precision: str | None,
    options: BuildOptions | None,
    engines: Path | None,
    progress: Progress,
) -> TensorRTBackend:
    """Load `graphs` into the library `name`; see `open_tensorrt`."""
    index = gpu_index(device, name)
    precisions = {graph: bundle.precision(graph, name, precision) for graph in graphs}
    library = load_library(name)
    cuda = Cuda(name, index)
    provided = provide_engines(
        bundle,
        library,
        precisions,
        cuda=cuda,
        options=options,
        root=engines or engines_folder(),
        progress=progress,
    )
    runners: dict[Graph, EngineRunner] = {}
    try:
        for graph, each in provided.items():
            runners[graph] = EngineRunner(each.folder, each.engine, library, Cuda(name, index))
    except BaseException:
        for runner in runners.values():
            runner.close()
        raise
    info = BackendInfo(
        name=name,
        engine=name,
        device=f"cuda:{index}",
        provider=f"{library.title} on {cuda.gpu.name}",
        precision=precisions,
        threads=1,
        batch=min(max(each.engine.made_for.options.batches) for each in provided.values()),
        concurrent=True,
        versions={
            name: library.version,
            "cuda-bindings": version("cuda-bindings"),
            "CUDA driver": cuda.driver,
            "plans": _plans(provided),
        },
    )
    return TensorRTBackend(bundle, runners, info, {graph: each.as_built() for graph, each in provided.items()})


def _plans(provided: Mapping[Graph, Provided]) -> str:
    """List the plans that a window passes through, so that a gate is valid for exactly these.

    Other options, or another build, may have chosen other kernels. A text graph's plan decides nothing: whether it
    was opened must not matter.
    """
    hashes = [f"{graph} {provided[graph].engine.plan.sha256}" for graph in sorted(provided) if graph not in TEXT_GRAPHS]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


class TensorRTBackend(GraphBackend):
    """Engines loaded on one GPU. Open it with `open_tensorrt` or `open_tensorrt_rtx`."""

    def __init__(
        self,
        bundle: Bundle,
        runners: Mapping[Graph, EngineRunner],
        info: BackendInfo,
        engines: Mapping[Graph, BuiltEngine],
    ) -> None:
        """Run each graph with its runner; `engines` describes the engines."""
        super().__init__(info, encoders=bundle.manifest.encoders, classes=len(bundle.vocabulary.names))
        self._runners = dict(runners)
        self._engines = dict(engines)

    @property
    def engines(self) -> Mapping[Graph, BuiltEngine]:
        """The built engines by graph."""
        return self._engines

    def warm_up(self) -> None:
        """Run each batch size of each graph, so that no window has a first-run cost; may compile for seconds."""
        for runner in self._runners.values():
            runner.warm_up()
        super().warm_up()  # with the vocabulary's own number of classes

    def close(self) -> None:
        """Free the GPU memory. May be called twice."""
        super().close()
        for runner in self._runners.values():
            runner.close()
        self._runners = {}

    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        return self._runners[graph].run(inputs)
