"""What an engine is asked to be, and what its evidence must say."""

from __future__ import annotations

from pathlib import Path

from ovavel.runtime.backends.tensorrt.library import load_library, this_platform
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, Engine, EngineFor
from ovavel.runtime.bundle.bundle import file_entry
from ovavel.runtime.bundle.graphs import Graph

__all__ = ["check", "made_for"]


def made_for(file: Path, graph: Graph, precision: str, options: BuildOptions) -> EngineFor:
    library = load_library("tensorrt-rtx")
    return EngineFor(
        library=library.name,
        version=library.version,
        platform=this_platform(),
        gpu=None,
        compute_capability="8.9",
        graph=graph,
        precision=precision,
        sources=(file_entry(file),),
        options=options,
    )


def check(engine: Engine, precision: str, *, products: int) -> None:
    """All products but the convolution are in `precision`, in the network and in the engine's own layers."""
    evidence = engine.evidence
    assert evidence.read_from == "network and build log"
    assert sum(evidence.products.values()) == products
    assert set(evidence.products) <= {precision, "fp32"}
    assert evidence.products[precision] >= products - 1
    assert evidence.found == evidence.products[precision]
