"""Bundles that are sabotaged with right hashes, and what notices it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ovavel.eval.parity.clips import RecordedClips
from ovavel.eval.parity.compare import compare_backends
from ovavel.eval.parity.runs import BackendSpec
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.verification.compare import Stage
from ovavel.runtime.verification.self_check import check_stages, graphs_to_check

__all__ = ["check_stage", "compare_stage", "constants", "graph_surgery", "put", "relist"]


def relist(folder: Path) -> None:
    """Put the true sizes and hashes of all files into the manifest."""
    content = json.loads((folder / "manifest.json").read_text())
    for name in content["files"]:
        entry = file_entry(folder / name)
        content["files"][name] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (folder / "manifest.json").write_text(json.dumps(content))


def graph_surgery(file: str, change: Callable[[onnx.GraphProto], None]) -> Callable[[Path], None]:
    """Return what changes a graph of a bundle in place."""

    def sabotage(folder: Path) -> None:
        path, weights = folder / file, folder / f"{file}.data"
        model = onnx.load(path)
        change(model.graph)
        _drop_unused(model.graph)
        weights.unlink()
        onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=256)

    return sabotage


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop constants that no node takes any more: ONNX Runtime does so before it is given their values."""
    used = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constants of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def put(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    """Give a constant other values."""
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def check_stage(bundle: Bundle) -> Stage | None:
    """The first stage that is off by the bundle's own golden outputs, in fp32."""
    backend = open_backend(bundle, device="cpu", threads=1, graphs=graphs_to_check(bundle), precision="fp32")
    with closing(backend):
        return check_stages(bundle, backend).failed_stage


def compare_stage(bundle: Bundle, clip: Path, **options: Any) -> Stage | None:
    """The first stage that is off beside PyTorch, opened with `options`, on a recording."""
    reference = BackendSpec(bundle=bundle, backend="torch", device="cpu", threads=1, options=options)
    candidate = BackendSpec(bundle=bundle, device="cpu", threads=1, precision="fp32", options={})
    return compare_backends(reference, candidate, RecordedClips([clip])).failed_stage
