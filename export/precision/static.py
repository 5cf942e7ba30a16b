"""Static quantization during export: float32 to 8 bits with fixed scales, for TensorRT.

QuantizeLinear and DequantizeLinear precede each product with a matrix. TensorRT fuses the three into one 8-bit product;
other engines compute with values rounded to 8 bits. The rest of the graph becomes fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ovavel.export.precision.activations import Activation
from ovavel.export.precision.half import halve
from ovavel.export.precision.linears import Linear, array, constant, find_linears
from ovavel.runtime.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Static", "quantize_static"]

# B batch, N tokens, I inputs and O outputs of a matrix

Static = Literal["fp8", "int8-static"]

_SMALLEST_SCALE = 2.0**-20
"""Scales are stored in fp16, whose smallest value is 2⁻²⁴."""
_SMALLEST_PEAK = 1e-5
"""Keeps the factor of a channel that was always 0 bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """An 8-bit number format."""

    dtype: str
    """Name in onnx_ir's DataType."""
    largest: float
    columns: bool
    """Whether each column of a matrix has its own scale. fp8 has one for all: its range spans 17 octaves."""
    migrate: bool
    """Whether the spread of an activation's channels is moved into the matrix first."""


_FORMATS = {
    "fp8": _Format(dtype="FLOAT8E4M3FN", largest=448.0, columns=False, migrate=False),
    "int8-static": _Format(dtype="INT8", largest=127.0, columns=True, migrate=True),
}


def quantize_static(model: onnx_ir.Model, seen: Sequence[Activation], form: Static) -> None:
    """Insert QuantizeLinear and DequantizeLinear before each MatMul of `model` with a matrix (I, O); halve the rest.

    Values are symmetric around 0. An activation has one scale, from the largest observed magnitude; a matrix has one
    in fp8 (E4M3), and one per column in int8. Stem and projection stay in fp16.

    Raises:
        ExportError: `seen`, from `observe_activations`, belongs to another graph.
    """
    import onnx_ir

    graph, kind = model.graph, _FORMATS[form]
    linears = find_linears(graph)
    if [len(array(each.matrix)) for each in linears] != [len(each.peaks) for each in seen[: len(linears)]]:
        raise ExportError(f"the {len(linears)} linear layers of the graph do not match those that were observed")
    dtype = onnx_ir.DataType[kind.dtype]
    zero = constant(graph, f"{form}_zero", np.zeros((), dtype.numpy()))
    for number, (linear, each) in enumerate(zip(linears, seen, strict=False)):  # `seen` also includes the projection
        name = f"linear_{number}"
        weights, peaks = array(linear.matrix), each.peaks
        if kind.migrate:
            weights, peaks = _migrate(graph, linear, peaks, name)
        row_scale = _scale(peaks.max(), kind)
        column_scale = _scale(np.abs(weights).max(axis=0 if kind.columns else None), kind)
        steps = weights / column_scale
        packed = (np.rint(steps) if form == "int8-static" else steps).clip(-kind.largest, kind.largest)
        scale = constant(graph, f"{name}.row_scale", row_scale)
        quantized = onnx_ir.node("QuantizeLinear", [linear.activation, scale, zero])
        rows = onnx_ir.node("DequantizeLinear", [quantized.outputs[0], scale, zero])
        zeros = constant(graph, f"{name}.zeros", np.zeros(column_scale.shape, dtype.numpy())) if kind.columns else zero
        held = constant(graph, f"{name}.{form}", packed.astype(dtype.numpy()))
        matrix = onnx_ir.node(
            "DequantizeLinear",
            [held, constant(graph, f"{name}.column_scale", column_scale), zeros],
            {"axis": 1} if kind.columns else {},
        )
        for node, output, shape in (
            (quantized, dtype, linear.activation.shape),
            (rows, onnx_ir.DataType.FLOAT, linear.activation.shape),
            (matrix, onnx_ir.DataType.FLOAT, held.shape),
        ):
            node.outputs[0].type, node.outputs[0].shape = onnx_ir.TensorType(output), shape
        product = linear.nodes[0]
        product.prepend([quantized, rows, matrix])
        product.replace_input_with(0, rows.outputs[0])
        product.replace_input_with(1, matrix.outputs[0])
        if linear.matrix.name and not linear.matrix.uses():
            del graph.initializers[linear.matrix.name]
    halve(model, "fp16")


def _migrate(
    graph: onnx_ir.Graph, linear: Linear, peaks: NDArray[np.float32], name: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Move part of the spread of the activation's channels into the matrix; return the matrix and the new peaks.

    Each channel of the preceding LayerNorm's gain and bias is divided by (peak of the channel / peak of the row) **
    0.5, and the row of the matrix is multiplied by it (SmoothQuant, Xiao et al. 2023, equation 4). Layers without a
    preceding LayerNorm are unchanged.
    """
    weights = array(linear.matrix)
    norm = linear.activation.producer()
    if norm is None or norm.op_type != "LayerNormalization" or len(linear.activation.uses()) > 1:
        return weights, peaks
    row_peaks = np.abs(weights).max(axis=1)
    factors = np.sqrt(np.maximum(peaks, _SMALLEST_PEAK) / np.maximum(row_peaks, _SMALLEST_PEAK))
    for index, part in ((1, "gain"), (2, "offset")):
        norm.replace_input_with(index, constant(graph, f"{name}.{part}", array(norm.inputs[index]) / factors))
    return weights * factors[:, None], peaks / factors


def _scale(largest: NDArray[np.float32] | np.float32, kind: _Format) -> NDArray[np.float32]:
    """Return the step size, rounded to fp16."""
    scale: NDArray[np.float32] = np.asarray(largest / np.float32(kind.largest), np.float32)
    return np.maximum(scale, np.float32(_SMALLEST_SCALE)).astype(np.float16).astype(np.float32)
