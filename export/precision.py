"""Number formats of a graph: one pass each over the fp32 graph in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ovavel.export.half import halve
from ovavel.export.quantize import quantize_matmuls
from ovavel.runtime.precisions import Precision

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["BYTES_PER_WEIGHT", "PASSES"]

PASSES: Mapping[Precision, Callable[[onnx_ir.Model], object]] = {
    "fp32": lambda model: model,
    "fp16": lambda model: halve(model, "fp16"),
    "bf16": lambda model: halve(model, "bf16"),
    "int8": quantize_matmuls,
}
"""Precision → what brings a simplified fp32 graph into it, in place."""

BYTES_PER_WEIGHT: Mapping[Precision, float] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1.1}
"""Disk space, roughly."""
