"""Scaling to unit norm, in a form that becomes ONNX without arithmetic on shapes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["unit_norm"]


def unit_norm(x: Tensor) -> Tensor:
    """(…, D) → (…, D) of unit norm, and 0 for 0: `F.normalize(x, dim=-1)`, bit for bit.

    That one expands the norm to the shape of `x`, which an ONNX graph would have to work out at run time.
    """
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit
