"""Exported 8-bit graphs in numpy, with sums of products as CPUs without dot products of 8 bits make them.

AVX2's vpmaddubsw adds two neighbouring products, uint8 × int8, in 16 bits, where the sum saturates. ONNX Runtime packs
the rows of a matrix so that those of 2i and 2i + 1 meet. `run` takes an exported graph as a whole; onnx's own reference
runs what is not ONNX Runtime's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

# R rows of an activation, I inputs and O outputs of a matrix


def exact(rows: NDArray[Any], matrix: NDArray[Any]) -> NDArray[np.int64]:
    """(R, I) uint8 @ (I, O) int8."""
    return rows.astype(np.int64) @ matrix.astype(np.int64)


def saturating(rows: NDArray[Any], matrix: NDArray[Any]) -> NDArray[np.int64]:
    """The same with the sum of each pair of products in 16 bits."""
    odd = ((0, len(matrix) % 2), (0, 0))
    left = np.pad(rows.astype(np.int32), odd[::-1]).reshape(len(rows), -1, 2)
    right = np.pad(matrix.astype(np.int32), odd).reshape(-1, 2, matrix.shape[1])
    total = np.zeros((len(rows), matrix.shape[1]), np.int64)
    for pair in range(left.shape[1]):
        total += (left[:, pair] @ right[pair]).clip(-(2**15), 2**15 - 1)
    return total


def integer_matrices(path: Path) -> dict[str, NDArray[np.int8]]:
    """Name → (I, O) of every int8 matrix in the graph `path`."""
    tensors = onnx.load(path).graph.initializer
    return {each.name: numpy_helper.to_array(each) for each in tensors if each.data_type == onnx.TensorProto.INT8}


def run(path: Path, array: NDArray[np.float32], *, saturate: bool) -> NDArray[np.float32]:
    """Run the graph `path`, of one input and one output."""
    model = onnx.load(path)
    product = saturating if saturate else exact
    evaluator = ReferenceEvaluator(model, new_ops=_operators(product))
    return evaluator.run(None, {model.graph.input[0].name: array})[0]


def _operators(product: Any) -> list[type[OpRun]]:
    def multiply(rows: NDArray[Any], zero: Any, matrix: NDArray[Any]) -> NDArray[np.float32]:
        flat = rows.reshape(-1, rows.shape[-1])
        summed = product(flat, matrix) - int(zero) * matrix.astype(np.int64).sum(axis=0)
        return summed.reshape(*rows.shape[:-1], -1).astype(np.float32)

    class MatMulIntegerToFloat(OpRun):
        op_domain = "com.microsoft"

        def _run(self, rows, matrix, step, scale, zero, _matrix_zero=None, bias=None):  # type: ignore[no-untyped-def]
            answer = multiply(rows, zero, matrix) * (step * scale)
            return (answer if bias is None else answer + bias,)

    class DynamicQuantizeMatMul(OpRun):
        op_domain = "com.microsoft"

        def _run(self, x, matrix, scale, _matrix_zero=None, bias=None):  # type: ignore[no-untyped-def]
            low, high = min(x.min(), 0), max(x.max(), 0)
            step = np.float32((high - low) / 255) or np.float32(1)
            zero = np.rint(np.clip(-low / step, 0, 255)).astype(np.uint8)
            rows = (np.rint(x / step) + zero).clip(0, 255).astype(np.uint8)
            answer = multiply(rows, zero, matrix) * (step * scale)
            return (answer if bias is None else answer + bias,)

    class MultiHeadAttention(OpRun):
        op_domain = "com.microsoft"

        def _run(self, query, key, value, num_heads=None, scale=None):  # type: ignore[no-untyped-def]
            def heads(each: NDArray[Any]) -> NDArray[Any]:
                return each.reshape(*each.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)

            scores = heads(query) @ heads(key).transpose(0, 1, 3, 2) * np.float32(scale)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ heads(value)
            return (mixed.transpose(0, 2, 1, 3).reshape(query.shape).astype(np.float32),)

    return [MatMulIntegerToFloat, DynamicQuantizeMatMul, MultiHeadAttention]
