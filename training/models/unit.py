"""Scaling to unit norm, in a form that exports to ONNX without arithmetic on shapes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["unit_norm"]


def unit_norm(x: Tensor) -> Tensor:
    """Scale (…, D) → (…, D) to unit norm, and 0 to 0: `F.normalize(x, dim=-1)`, bit for bit.

    `F.normalize` expands the norm to the shape of `x`, which an ONNX graph would have to compute at run time.
    """
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit
