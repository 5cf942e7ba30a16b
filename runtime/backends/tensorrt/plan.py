"""What an engine is for, told in a file beside it: library and version, GPU, graph, precision, options."""

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
    """What the builder was told. Another value makes another engine."""

    batches: tuple[Annotated[int, Meta(ge=1)], ...] = (1, 4, 16)
    """Batch sizes that the encoders are optimised for, one profile each."""
    workspace_mb: Annotated[int, Meta(ge=1)] = 4096
    """Scratch memory that a layer may use on the GPU."""


class EngineFor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides whether an engine may be used; equal ones are served by the same engine."""

    library: LibraryName
    version: str
    platform: str
    """Operating system and processor."""
    gpu: str | None
    """Name of the GPU; None for TensorRT-RTX, whose engines serve every GPU of the compute capability."""
    compute_capability: str
    graph: Graph
    precision: str
    sources: tuple[FileEntry, ...]
    """The ONNX file and its external data."""
    options: BuildOptions

    @property
    def number_format(self) -> str:
        """What the products compute in: a precision may say in its name where its scales come from, too."""
        return self.precision.removesuffix("-static")

    @property
    def family(self) -> str:
        """What the names of the folders of all engines begin with that differ in nothing but their options."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "options"}
        return f"{self.graph}-{self.precision}-{_digest(fields)[:16]}"

    @property
    def key(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.family}-{_digest(self.options)[:8]}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode((_FORMAT_VERSION, value), order="sorted")).hexdigest()


class Evidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is known that the engine computes in the precision that was asked for."""

    products: dict[str, int]
    """Precision → how many of the matrix products with weights the parsed network has in it."""
    found: int | None
    """How many of those in the asked precision were found so in the engine's layers; None: it shows too few."""
    read_from: str
    """Where the layers were read: "network", "network and build log", or "network and engine inspector"."""


class Engine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `engine.json` says of the plan beside it."""

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
    """Say what the engine of `graph` in `precision` would be for; hashes come from the bundle's manifest."""
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
    """Read `folder`'s `engine.json` and check that its plan is whole and for `wanted`.

    Raises:
        EngineError: it is damaged, or for another library, version, GPU, bundle or other options; says which.
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
            values = "" if name in ("sources", "options") else f": {theirs or 'any'}, and here it is {ours or 'any'}"
            raise EngineError(f"the engine {folder} was built for another {what}{values}; {again}")
    if entry != engine.plan:
        raise EngineError(f"{folder / PLAN} is damaged: its hash is not the one in {METADATA}; {again}")
    return engine
