"""What tests ask of an exported graph."""

from __future__ import annotations

from pathlib import Path

import onnx


def computed_shapes(path: Path) -> set[str]:
    """Operators of the graph that work out shapes at run time, or that ONNX Runtime's CUDA long had no kernel for."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return {node.op_type for node in graph.node} & {"Shape", "Size", "Expand", "Range", "ConstantOfShape", "Pad"} | {
        node.op_type for node in graph.node if node.op_type == "Reshape" and node.input[1] not in constants
    }
