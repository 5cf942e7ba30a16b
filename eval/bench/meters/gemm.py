"""An ONNX model of one matrix product, written without the onnx library: what a CPU does at best in ONNX Runtime."""

from __future__ import annotations

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

__all__ = ["gemm_model"]

_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # TensorProto.DataType
_OPSET, _IR = 20, 10


def gemm_model(precision: str, depth: int, columns: int) -> bytes:
    """`left` (rows, depth) times constant weights (depth, columns).

    "fp32" is MatMul of float32; "int8" is MatMulInteger of uint8 and int8, as dynamic quantization uses it.
    """
    random = default_rng(0)
    weights: NDArray[np.int8] | NDArray[np.float32]
    if precision == "int8":
        weights = random.integers(-64, 64, (depth, columns), np.int8)
        operator, left, right, result = b"MatMulInteger", _UINT8, _INT8, _INT32
    else:
        weights = random.random((depth, columns), np.float32)
        operator, left, right, result = b"MatMul", _FLOAT, _FLOAT, _FLOAT
    node = _bytes(1, b"left") + _bytes(1, b"right") + _bytes(2, b"product") + _bytes(4, operator)
    tensor = _number(1, depth) + _number(1, columns) + _number(2, right) + _bytes(8, b"right")
    graph = _bytes(1, node) + _bytes(2, b"gemm") + _bytes(5, tensor + _bytes(9, weights.tobytes()))
    graph += _bytes(11, _value(b"left", left, depth)) + _bytes(12, _value(b"product", result, columns))
    return _number(1, _IR) + _bytes(7, graph) + _bytes(8, _number(2, _OPSET))


def _value(name: bytes, kind: int, columns: int) -> bytes:
    """ValueInfoProto of a matrix with any number of rows."""
    shape = _bytes(1, _bytes(2, b"rows")) + _bytes(1, _number(1, columns))
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
