"""Required agreement with PyTorch in fp32, by precision (docs/parity.md).

The only definition of these limits, used by the exporter, `ovavel bundle check` and `ovavel eval parity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FP32_DIFFERENCE", "HEAD_DIFFERENCE", "REQUIREMENTS", "Requirement", "loosest", "requirement"]

FP32_DIFFERENCE = 5e-6
"""Largest allowed difference of an embedding component in fp32. Rounding causes at most 7e-7; a LayerNorm epsilon of
1e-5 instead of 1e-6 causes 4.5e-5 or more, which the cosine alone may miss (docs/parity.md)."""
HEAD_DIFFERENCE = 1e-4
"""Largest allowed difference of a similarity or score in fp32; rounding causes 1e-6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Limits for one precision."""

    min_cosine: float
    """Minimum cosine similarity of every single embedding with PyTorch's."""
    max_abs_difference: float | None
    """Largest allowed difference of any embedding component; None where rounding alone exceeds it."""
    head_difference: float
    """Largest allowed difference of a similarity for equal embeddings, and of a score for equal similarities."""
    decisions: float | None
    """Minimum share of seconds of real media, ties included, with the same decision; None where the measures count
    instead."""
    golden_decisions: float
    """Minimum share of golden seconds, ties excluded, with the same decision."""
    tie: float
    """Lead of the best score over the next below which a golden second is a tie: rounding may decide it either way."""
    measures: float = 0.99
    """Minimum ratio of each of Acc., Seg., Eve. and Avg. to the reference's."""


_FP32 = Requirement(
    min_cosine=0.999999,
    max_abs_difference=FP32_DIFFERENCE,
    head_difference=HEAD_DIFFERENCE,
    decisions=0.999,
    golden_decisions=0.999,
    tie=1e-3,
)
# The direction stays as close as fp32; rounding an outlier shifts a single component by a few 1e-5.
_SIXTEEN_BITS = Requirement(
    min_cosine=0.999999,
    max_abs_difference=1e-3,
    head_difference=1e-3,
    decisions=0.999,
    golden_decisions=0.999,
    tie=1e-2,
)
_HALF = Requirement(
    min_cosine=0.999,
    max_abs_difference=None,
    head_difference=1e-2,
    decisions=0.999,
    golden_decisions=0.999,
    tie=0.1,
)
_EIGHT_BITS = Requirement(
    min_cosine=0.99, max_abs_difference=None, head_difference=5e-2, decisions=None, golden_decisions=0.95, tie=0.3
)
# What the full encoder's other half of the tokens may add, by 1 - cosine.
_POOLED = Requirement(
    min_cosine=0.998, max_abs_difference=None, head_difference=1e-2, decisions=0.999, golden_decisions=0.999, tie=0.1
)

REQUIREMENTS = {
    "fp32": _FP32,
    "fp16": _HALF,
    "bf16": _HALF,
    "int16": _SIXTEEN_BITS,
    "int16-any": _SIXTEEN_BITS,
    "int8": _EIGHT_BITS,
    "fp8": _EIGHT_BITS,
    "fp32-pooled": _POOLED,
}
"""Limits by precision."""


def requirement(precision: str) -> Requirement:
    """Return the limits for `precision`; one that is not in `REQUIREMENTS` is quantized and has int8's limits."""
    return REQUIREMENTS.get(precision, _EIGHT_BITS)


def loosest(precisions: Iterable[str]) -> Requirement:
    """Return the limits for a decision computed by graphs of several precisions."""
    return min(map(requirement, precisions), key=lambda each: each.min_cosine)
