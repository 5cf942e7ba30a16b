"""float32 matrices → int8, in a graph that is being exported.

ONNX Runtime's own quantiser does the same to a finished file. It holds all weights twice and failed on graphs of more
than 2 GB, so this one works on the graph in memory, one matrix at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["quantize_matmuls"]

# N rows of an activation, I inputs and O outputs of a matrix

_LARGEST = 127
"""-128 stays unused, so that 0 is in the middle."""


def quantize_matmuls(model: onnx_ir.Model) -> int:
    """Let every MatMul of `model` with a constant matrix (I, O) compute in integers; return how many there are.

    The matrix becomes int8 with one scale per column, symmetric around 0. The activation becomes uint8 with one scale
    and one zero point for the whole tensor, which the graph finds out at run time. Sums are int32, so that only the two
    roundings cost accuracy. All in standard operators, which ONNX Runtime fuses into one on loading.
    """
    import onnx_ir

    matmuls = [
        node
        for node in model.graph
        if node.op_type == "MatMul"
        and (matrix := node.inputs[1])
        and matrix.const_value
        and len(matrix.shape or ()) == 2
    ]
    for node in matmuls:
        activation, matrix = node.inputs
        assert activation is not None and matrix is not None and matrix.const_value is not None  # noqa: PT018
        values = matrix.const_value.numpy()
        scale = np.maximum(np.abs(values).max(axis=0) / np.float32(_LARGEST), np.finfo(np.float32).tiny)
        constants = []
        for suffix, array in (("int8", np.rint(values / scale).astype(np.int8)), ("scale", scale)):
            name = f"{matrix.name}_{suffix}"
            constants.append(onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name)))
            model.graph.register_initializer(constants[-1])
        quantized = onnx_ir.node("DynamicQuantizeLinear", [activation], num_outputs=3)
        rows, row_scale, zero_point = quantized.outputs
        product = onnx_ir.node("MatMulInteger", [rows, constants[0], zero_point])
        floats = onnx_ir.node("Cast", product.outputs, {"to": onnx_ir.DataType.FLOAT})
        scales = onnx_ir.node("Mul", [row_scale, constants[1]])
        answer = onnx_ir.node("Mul", [floats.outputs[0], scales.outputs[0]])
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [quantized, product, floats, scales, answer], node.outputs, answer.outputs
        )
        if not matrix.uses():
            del model.graph.initializers[matrix.name or ""]
    return len(matmuls)
