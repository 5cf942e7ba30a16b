"""Number formats of a graph: one pass over the fp32 graph in memory for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ovavel.export.precision.activations import Activation
from ovavel.export.precision.half import halve
from ovavel.export.precision.quantize import INT8, INT8_ANY, INT16, INT16_ANY, quantize
from ovavel.export.precision.static import quantize_static
from ovavel.runtime.bundle.precision import POOLED, Precision

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["BYTES_PER_WEIGHT", "FITTED", "PASSES"]

_FORMATS: Mapping[str, Callable[[onnx_ir.Model, Sequence[Activation]], object]] = {
    "fp32": lambda model, _: model,
    "fp16": lambda model, _: halve(model, "fp16"),
    "bf16": lambda model, _: halve(model, "bf16"),
    "int16": lambda model, seen: quantize(model, seen, INT16),
    "int16-any": lambda model, seen: quantize(model, seen, INT16_ANY),
    "int8": lambda model, seen: quantize(model, seen, INT8),
    "int8-any": lambda model, seen: quantize(model, seen, INT8_ANY),
    "int8-static": lambda model, seen: quantize_static(model, seen, "int8-static"),
    "fp8": lambda model, seen: quantize_static(model, seen, "fp8"),
}
PASSES: Mapping[str, Callable[[onnx_ir.Model, Sequence[Activation]], object]] = {
    **_FORMATS,
    **{pooled: _FORMATS[form] for pooled, form in POOLED.items()},
}
"""Precision → pass that converts a simplified fp32 graph to it, in place; of pooled sound, where it is pooled."""

FITTED: frozenset[Precision] = frozenset(
    {"int16", "int16-any", "int8", "int8-any", "int8-static", "fp8", "int8-pooled", "int8-any-pooled"}
)
"""Precisions that are calibrated on observed activations."""

BYTES_PER_WEIGHT: Mapping[str, float] = {
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "int16": 2.1,
    "int16-any": 2.1,
    "int8": 1.1,
    "int8-any": 1.1,
    "int8-static": 1.1,
    "fp8": 1.1,
    "fp32-pooled": 4,
    "int8-pooled": 1.1,
    "int8-any-pooled": 1.1,
}
"""Approximate disk space."""
