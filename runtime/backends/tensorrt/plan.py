"""Description of an engine, stored beside it: library and version, GPU, graph, precision, options."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ovavel.runtime.backends.tensorrt.library import Library, LibraryName, this_platform
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.manifest import FileEntry
from ovavel.runtime.errors import EngineError
from ovavel.runtime.system.untrusted import read_json

__all__ = [
    "METADATA",
    "PLAN",
    "TEXT_INPUTS",
    "BuildOptions",
    "Engine",
    "EngineFor",
    "Evidence",
    "engine_for",
    "read_engine",
]

PLAN, METADATA = "engine.plan", "engine.json"
TEXT_INPUTS = ("audio_text", "vision_text")
"""Inputs of the head that have a row for each class; all others are cut into batches."""
_FORMAT_VERSION = 1


class BuildOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Build options. Different values make different engines."""

    batches: tuple[Annotated[int, Meta(ge=1)], ...] = (1, 4, 16)
    """Batch sizes that the encoders are optimized for, one profile each."""
    workspace_mb: Annotated[int, Meta(ge=1)] = 4096
    """Scratch memory that a layer may use on the GPU."""


class EngineFor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that determines whether an engine can be used; equal keys share an engine."""

    library: LibraryName
    version: str
    platform: str
    """Operating system and processor."""
    gpu: str | None
    """Name of the GPU; None for TensorRT-RTX, whose engines run on every GPU of the compute capability."""
    compute_capability: str
    graph: Graph
    precision: str
    sources: tuple[FileEntry, ...]
    """The ONNX file and its external data."""
    options: BuildOptions

    @property
    def number_format(self) -> str:
        """Number format of the products, without the suffix for the origin of the scales."""
        return self.precision.removesuffix("-static")

    @property
    def family(self) -> str:
        """Folder name prefix shared by all engines that differ only in their options."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "options"}
        return f"{self.graph}-{self.precision}-{_digest(fields)[:16]}"

    @property
    def key(self) -> str:
        """Name of the engine's folder in the cache."""
        return f"{self.family}-{_digest(self.options)[:8]}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode((_FORMAT_VERSION, value), order="sorted")).hexdigest()


class Evidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evidence that the engine computes in the requested precision."""

    products: dict[str, int]
    """Precision → number of matrix products with weights that the parsed network has in it."""
    found: int | None
    """How many products the engine's layers compute in the requested precision; None if too few are exposed."""
    read_from: str
    """What was checked: "network", "network and build log", or "network and engine inspector"."""


class Engine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of `engine.json`: describes the plan beside it."""

    format_version: int = _FORMAT_VERSION
    made_for: EngineFor
    plan: FileEntry
    evidence: Evidence
    build_s: float


def engine_for(
    bundle: Bundle,
    graph: Graph,
    precision: str,
    *,
    library: Library,
    gpu: str | None,
    compute_capability: str,
    options: BuildOptions,
) -> EngineFor:
    """Return the key of the engine of `graph` in `precision`; hashes come from the bundle's manifest."""
    listed = bundle.manifest.files
    return EngineFor(
        library=library.name,
        version=library.version,
        platform=this_platform(),
        gpu=None if library.rtx else gpu,
        compute_capability=compute_capability,
        graph=graph,
        precision=precision,
        sources=tuple(listed[name] for name in bundle.graph_files(graph, precision)),
        options=options,
    )


def read_engine(folder: Path, wanted: EngineFor) -> Engine:
    """Read `folder`'s `engine.json` and check that its plan is intact and matches `wanted`.

    Raises:
        EngineError: it is damaged, or was built for another library, version, GPU, bundle or other options.
    """
    again = f"delete the folder {folder}, or build it again with `ovavel bundle engine --overwrite`"
    try:
        engine = read_json((folder / METADATA).read_bytes(), Engine)
        entry = file_entry(folder / PLAN)
    except (OSError, ValueError) as error:
        raise EngineError(f"the engine {folder} is damaged ({error}); {again}") from error
    if engine.format_version != _FORMAT_VERSION:
        raise EngineError(f"the engine {folder} was written by another version of ovavel; {again}")
    made_for = engine.made_for
    for name in EngineFor.__struct_fields__:
        theirs, ours = getattr(made_for, name), getattr(wanted, name)
        if theirs != ours:
            what = {"gpu": "GPU", "sources": "bundle"}.get(name, name.replace("_", " "))
            values = "" if name in ("sources", "options") else f": {theirs or 'any'}, but here it is {ours or 'any'}"
            raise EngineError(f"the engine {folder} was built for another {what}{values}; {again}")
    if entry != engine.plan:
        raise EngineError(f"{folder / PLAN} is damaged: its hash is not the one in {METADATA}; {again}")
    return engine
