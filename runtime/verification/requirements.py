"""How near to PyTorch in fp32 an engine must stay, by the precision it computes in (docs/parity.md).

The one place where these numbers stand: the exporter, `ovavel bundle check` and `ovavel eval parity` ask here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FP32_DIFFERENCE", "HEAD_DIFFERENCE", "REQUIREMENTS", "Requirement", "loosest", "requirement"]

FP32_DIFFERENCE = 5e-6
"""Most that a component of an embedding may be off in fp32. Rounding moves it by 7e-7 at most, and a LayerNorm epsilon
of 1e-5 for 1e-6 by 4.5e-5 or more, which the cosine alone may miss (docs/parity.md)."""
HEAD_DIFFERENCE = 1e-4
"""Most that a similarity or a score may be off in fp32; rounding moves it by 1e-6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one precision is held to."""

    min_cosine: float
    """Least cosine similarity of every single embedding with PyTorch's."""
    max_abs_difference: float | None
    """Most that any component of an embedding may be off; None where rounding alone moves them more."""
    head_difference: float
    """Most that a similarity may be off for the same embeddings, and a score for the same similarities."""
    decisions: float | None
    """Least share of the seconds of real media, ties included, that are decided alike; None where the measures count
    instead."""
    golden_decisions: float
    """Least share of the golden seconds, ties left out, that are decided alike."""
    tie: float
    """Lead of the best score over the next below which a golden second is a tie: rounding may settle it either way."""
    measures: float = 0.99
    """What Acc., Seg., Eve. and Avg. must each keep of the reference's own."""


_FP32 = Requirement(
    min_cosine=0.999999,
    max_abs_difference=FP32_DIFFERENCE,
    head_difference=HEAD_DIFFERENCE,
    decisions=0.999,
    golden_decisions=0.999,
    tie=1e-3,
)
# As near as fp32 in direction; of a component, an outlier's rounding is worth a few 1e-5.
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

REQUIREMENTS = {
    "fp32": _FP32,
    "fp16": _HALF,
    "bf16": _HALF,
    "int16": _SIXTEEN_BITS,
    "int16-any": _SIXTEEN_BITS,
    "int8": _EIGHT_BITS,
    "fp8": _EIGHT_BITS,
}
"""By precision."""


def requirement(precision: str) -> Requirement:
    """What `precision` is held to: a precision that is not in `REQUIREMENTS` is a quantised one, held to int8's."""
    return REQUIREMENTS.get(precision, _EIGHT_BITS)


def loosest(precisions: Iterable[str]) -> Requirement:
    """What is required of a decision that goes through graphs of several precisions."""
    return min(map(requirement, precisions), key=lambda each: each.min_cosine)
