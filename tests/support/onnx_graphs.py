"""Graphs exported one at a time, and what tests ask of them."""

from __future__ import annotations

from pathlib import Path

import onnx
from torch import nn

from ovavel.export.graphs import save_variant, traced
from ovavel.export.inputs import calibration_inputs
from ovavel.export.precision.activations import observe_activations
from ovavel.export.precision.passes import FITTED
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.bundle.precision import Precision


def export_graph(
    name: Graph, module: nn.Module, folder: Path, *, encoders: Encoders, precision: Precision = "fp32"
) -> list[Path]:
    """Write `module` as the graph `name` in one precision; return its files."""
    fitted = precision in FITTED and (name == "vision" or name == "audio")
    seen = observe_activations(module, calibration_inputs(name, encoders)) if fitted else ()
    return save_variant(traced(name, module, encoders=encoders), name, folder, precision, seen)


def computed_shapes(path: Path) -> set[str]:
    """Operators of the graph that work out shapes at run time, or that ONNX Runtime's CUDA long had no kernel for."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return {node.op_type for node in graph.node} & {"Shape", "Size", "Expand", "Range", "ConstantOfShape", "Pad"} | {
        node.op_type for node in graph.node if node.op_type == "Reshape" and node.input[1] not in constants
    }
