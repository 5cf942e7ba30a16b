"""Output folder of an export: checks before minutes of work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.export.precision.passes import BYTES_PER_WEIGHT
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS, Graph
from ovavel.runtime.bundle.manifest import MANIFEST
from ovavel.runtime.bundle.precision import DOT_PRODUCTS, ENGINE_PRECISIONS, Precision, any_form, exact_here, of_graph
from ovavel.runtime.errors import ExportError, UsageError
from ovavel.runtime.system.hardware import cpu_features

if TYPE_CHECKING:
    from ovavel.training.models.source import Model

__all__ = ["check_exact", "check_place"]


def check_exact(precisions: Sequence[Precision]) -> None:
    """Refuse precisions that saturate on this CPU, since they cannot be compared with PyTorch here."""
    runs = ENGINE_PRECISIONS["onnxruntime-cpu"]
    for each in precisions:
        if each in runs and not exact_here("onnxruntime-cpu", each, (), cpu_features()):
            raise UsageError(
                f"{each} can be verified only on a CPU with {' or '.join(DOT_PRODUCTS)}, and this one has none of "
                f"them: use {any_form(each)} instead, which is exact on every CPU"
            )


def check_place(out: Path, model: Model, precisions: Sequence[Precision], *, overwrite: bool) -> None:
    """Refuse an `out` that holds something else, and a disk without enough space for the graphs."""
    if out.exists() or out.is_symlink():
        if not overwrite:
            raise UsageError(f"{out} already exists; choose another folder, or replace the bundle with --overwrite")
        if not (out / MANIFEST).is_file():
            raise UsageError(f"{out} is not a bundle and was not overwritten; choose another folder")
    place = next(folder for folder in out.parents if folder.exists())
    need = 64.0 * 2**20
    graphs: tuple[Graph, ...] = ("vision", "audio", *model.encoders.text_graphs)
    for graph in graphs:
        forms = {"fp32"} if graph in TEXT_GRAPHS else {of_graph(graph, each) for each in precisions}
        need += model.size(graph) * sum(BYTES_PER_WEIGHT[each] for each in forms)
    free = shutil.disk_usage(place).free
    if free < need:
        raise ExportError(
            f"{place} has {free / 1e9:.1f} GB free and the bundle needs {need / 1e9:.1f} GB; free some space"
        )
