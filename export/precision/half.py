"""Conversion of a graph from float32 to fp16 or bf16 during export, and emulation for its verification.

ONNX Runtime has no bf16 kernels for CPUs. In fp16 it computes chains of operators in fp32, so values too large for fp16
go unnoticed. `emulate` rounds after every step instead, like a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Half", "emulated", "halve"]

Half = Literal["fp16", "bf16"]

_PRODUCTS: Mapping[Half, frozenset[str]] = {
    "fp16": frozenset({"Conv", "DequantizeLinear", "Gemm", "MatMul"}),
    "bf16": frozenset({"DequantizeLinear", "Gemm", "MatMul"}),  # Conv supports bf16 from opset 22 on
}
"""Nearly all of the arithmetic, and all that tensor cores accelerate, with the unpacking of factors. Sums are fp32."""
_FOLLOW = frozenset(
    {"Add", "Concat", "Gelu", "Mul", "QuantizeLinear", "Reshape", "Slice", "Softmax", "Split", "Squeeze", "Transpose"}
)
"""Operators that use half precision if all their inputs do. The others stay in fp32: normalisations, and the sums of
the residual stream, whose inputs are fp32."""


def halve(model: onnx_ir.Model, half: Half) -> None:
    """Convert matrix products, their weights and what lies between them to `half`; graph inputs and outputs stay fp32.

    Casts are inserted at the boundaries, once per value.
    """
    import onnx_ir

    lower, upper = _dtype(half), onnx_ir.DataType.FLOAT
    graph = model.graph
    cast: dict[tuple[onnx_ir.Value, onnx_ir.DataType], onnx_ir.Value] = {}

    def as_type(value: onnx_ir.Value, dtype: onnx_ir.DataType, before: onnx_ir.Node) -> onnx_ir.Value:
        if (value, dtype) not in cast:
            if value.const_value is not None:
                name = f"{value.name}_{half}"
                tensor = _converted(value.const_value, dtype, name)
                cast[value, dtype] = onnx_ir.Value(
                    name=name, const_value=tensor, shape=tensor.shape, type=onnx_ir.TensorType(dtype)
                )
                graph.register_initializer(cast[value, dtype])
            else:
                node = onnx_ir.node("Cast", [value], {"to": dtype})
                node.outputs[0].type, node.outputs[0].shape = onnx_ir.TensorType(dtype), value.shape
                before.prepend(node)
                cast[value, dtype] = node.outputs[0]
        return cast[value, dtype]

    lowered: set[onnx_ir.Value] = set()
    for node in list(graph):
        computed = {
            value
            for value in node.inputs
            if value is not None and value.const_value is None and value.dtype in (None, upper, lower)
        }
        fits = node.op_type in _PRODUCTS[half] or (node.op_type in _FOLLOW and computed <= lowered)
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            constant = value.const_value is not None and value.const_value.dtype == upper
            if fits and (constant or (value in computed and value not in lowered)):
                node.replace_input_with(index, as_type(value, lower, node))
            elif not fits and value in lowered:
                node.replace_input_with(index, as_type(value, upper, node))
        if fits:
            floats = [output for output in node.outputs if output.dtype in (None, upper)]
            lowered.update(floats)
            for output in floats:
                output.type = onnx_ir.TensorType(
                    lower
                )  # the old type is shared with the graph that this one was cloned from
    for index, output in enumerate(graph.outputs):
        if output in lowered:
            node = onnx_ir.node("Cast", [output], {"to": upper})
            wide = node.outputs[0]
            wide.name, output.name = output.name, f"{output.name}_{half}"
            wide.type, wide.shape = onnx_ir.TensorType(upper), output.shape
            graph.append(node)
            graph.outputs[index] = wide
    for value in [value for value in graph.initializers.values() if not value.uses()]:
        del graph.initializers[value.name or ""]


def emulate(model: onnx_ir.Model) -> None:
    """Convert a graph from `halve` to compute in fp32, rounding each value that was in half precision."""
    import onnx_ir

    upper = onnx_ir.DataType.FLOAT
    halves = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)
    for value in list(model.graph.initializers.values()):
        if value.dtype in halves:
            users = list(value.uses())
            wide = onnx_ir.node("Cast", [value], {"to": upper})
            model.graph.insert_before(model.graph[0], wide)
            for use in users:
                use.node.replace_input_with(use.idx, wide.outputs[0])
    for node in list(model.graph):
        for output in node.outputs:
            half = output.dtype
            if half not in halves:
                continue
            users = list(output.uses())
            rounded = onnx_ir.node("Cast", [output], {"to": half})
            wide = onnx_ir.node("Cast", rounded.outputs, {"to": upper})
            if node.op_type != "Cast":
                output.dtype = upper
            model.graph.insert_after(node, [rounded, wide])
            for use in users:
                use.node.replace_input_with(use.idx, wide.outputs[0])


@contextmanager
def emulated(path: Path) -> Iterator[Path]:
    """Yield the result of `emulate` for the ONNX file `path`, as a temporary file next to it.

    It refers to the original half-precision weights.
    """
    import onnx_ir

    model = onnx_ir.load(path)
    emulate(model)
    twin = path.with_name(f"{path.stem}.emulated.onnx")
    try:
        onnx_ir.save(model, twin)
        yield twin
    finally:
        twin.unlink(missing_ok=True)


def _dtype(half: Half) -> onnx_ir.DataType:
    import onnx_ir

    return {"fp16": onnx_ir.DataType.FLOAT16, "bf16": onnx_ir.DataType.BFLOAT16}[half]


def _converted(tensor: onnx_ir.TensorProtocol, dtype: onnx_ir.DataType, name: str) -> onnx_ir.LazyTensor:
    """Return `tensor` as `dtype`, converted only when written, so that the weights are never in memory twice."""
    import onnx_ir

    def convert() -> onnx_ir.TensorProtocol:
        with np.errstate(over="ignore"):  # verification detects infinite values
            return onnx_ir.Tensor(tensor.numpy().astype(dtype.numpy()), name=name)

    return onnx_ir.LazyTensor(
        convert,
        dtype=dtype,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        name=name,
    )
