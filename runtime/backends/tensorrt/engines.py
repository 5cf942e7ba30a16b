"""Provide the engines of a bundle: find existing ones and build the missing ones, with progress."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from ovavel.runtime.backends.tensorrt.cache import Provided, found_options, provide_engine
from ovavel.runtime.backends.tensorrt.cuda import Cuda
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, engine_for
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.hashed import GraphFiles
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.progress import Progress, no_progress, part_of

__all__ = ["provide_engines"]


def provide_engines(
    bundle: Bundle,
    library: Library,
    precisions: Mapping[Graph, str],
    *,
    cuda: Cuda | None,
    compute_capability: str | None = None,
    options: BuildOptions | None,
    root: Path,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[Graph, Provided]:
    """Return the engine of each graph in `precisions`; build those missing from `root`.

    Many parameters: what to build, what for and where are independent of each other.

    Args:
        bundle: holds the graphs.
        library: the library to build with.
        precisions: graph → the precision to build it in.
        cuda: the GPU they are for; TensorRT-RTX can also build for a `compute_capability` without a GPU.
        compute_capability: such as "8.9"; None: the GPU's own.
        options: build options; None: accept the newest existing engine whatever its options.
        root: folder of engines.
        overwrite: build them even where they are there.
        progress: called with the stage and the share of all graphs' work; never called where all engines are there.

    Raises:
        UsageError: neither a GPU nor a compute capability, or a capability that the library cannot build for.
        EngineError: one cannot be built, is damaged, or does not compute in the requested precision.
        OutputError: `root` cannot be written to.
    """
    if compute_capability is None:
        if cuda is None:
            raise UsageError("which GPU is the engine for? Name its compute capability, e.g. 8.9")
        compute_capability = cuda.gpu.compute_capability
    if not re.fullmatch(r"\d+\.\d", compute_capability):
        raise UsageError(f"{compute_capability!r} is not a compute capability; give a number such as 8.9")
    library.check_capability(compute_capability)
    wanted = {
        graph: engine_for(
            bundle,
            graph,
            precision,
            library=library,
            gpu=cuda.gpu.name if cuda else None,
            compute_capability=compute_capability,
            options=options or BuildOptions(),
        )
        for graph, precision in precisions.items()
    }
    if options is None:
        wanted = {graph: replace(each, options=found_options(root, each)) for graph, each in wanted.items()}
    bytes_of = {graph: sum(entry.bytes for entry in each.sources) for graph, each in wanted.items()}
    total, done = sum(bytes_of.values()), 0
    provided = {}
    for graph, made_for in wanted.items():
        provided[graph] = provide_engine(
            partial(_load, bundle, graph, made_for.precision),
            made_for,
            library,
            root=root,
            cuda=cuda,
            overwrite=overwrite,
            progress=part_of(progress, done / total, bytes_of[graph] / total),
        )
        done += bytes_of[graph]
    return provided


def _load(bundle: Bundle, graph: Graph, precision: str) -> GraphFiles:
    return bundle.load({graph: precision})[graph]
