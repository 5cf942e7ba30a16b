"""The number formats that vision and audio may compute in, and which of them each engine runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

__all__ = ["ENGINE_PRECISIONS", "Precision", "preferred"]

Precision = Literal["fp32", "fp16", "bf16", "int16", "int8", "int8-static", "fp8"]
"""docs/precision.md tells what each of them is."""

ENGINE_PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "onnxruntime-cpu": ("int8", "int16", "fp32", "fp16"),
    "onnxruntime-cuda": ("fp16", "bf16", "fp32"),
    "openvino": ("bf16", "fp32", "int8-static"),
    "tensorrt": ("fp16", "bf16", "fp32", "int8-static", "fp8"),
    "tensorrt-rtx": ("fp16", "bf16", "fp32", "int8-static", "fp8"),
}
"""Engine → what it runs; unless told otherwise, the first of them that a bundle has: the fastest, but for 8 bits with
fixed scales: they lose the most, and not every GPU has them. An engine that is not here says itself what it cannot
run."""


def preferred(engine: str, there: Iterable[str]) -> str | None:
    """Return which of the precisions `there` `engine` runs unless told otherwise; None: it runs none of them."""
    return next((each for each in ENGINE_PRECISIONS[engine] if each in set(there)), None)
