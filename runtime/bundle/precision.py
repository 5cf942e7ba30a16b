"""The number formats that vision and audio may compute in, which of them each engine runs, and on which CPUs.

ONNX Runtime and OpenVINO multiply 8-bit integers exactly if the CPU has 8-bit dot products. On other CPUs they add two
products in 16 bits, and the sum saturates (AVX2's vpmaddubsw). A graph that can saturate on a CPU is never run on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from ovavel.runtime.bundle.graphs import Graph

__all__ = [
    "ANY",
    "DOT_PRODUCTS",
    "ENGINE_PRECISIONS",
    "EXACT_ON",
    "POOLED",
    "Precision",
    "any_form",
    "default_here",
    "exact_forms",
    "exact_here",
    "exact_precisions",
    "is_pooled",
    "of_graph",
    "preferred",
]

Precision = Literal[
    "fp32",
    "fp16",
    "bf16",
    "int16",
    "int16-any",
    "int8",
    "int8-any",
    "int8-static",
    "fp8",
    "fp32-pooled",
    "int8-pooled",
    "int8-any-pooled",
]
"""Described in docs/precision.md."""

POOLED: Mapping[str, Precision] = {"fp32-pooled": "fp32", "int8-pooled": "int8", "int8-any-pooled": "int8-any"}
"""Precision that computes half of the tokens of sound → its number format, which is the precision of its other
graphs. None of them is ever a default."""

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features, by their names in Linux, each of which makes sums of 8-bit products exact."""
ANY = "any"
"""Instead of a CPU feature: exact on every CPU."""

EXACT_ON: Mapping[str, tuple[str, ...]] = dict.fromkeys(("int8", "int8-pooled", "int16", "int8-static"), DOT_PRODUCTS)
"""Precision → CPU features, one of which it needs; the others are exact on every CPU. A bundle's manifest lists the
features for its own graphs."""

_ANY_FORMS: Mapping[str, Precision] = {
    "int8": "int8-any",
    "int8-pooled": "int8-any-pooled",
    "int16": "int16-any",
}
"""Precision → the form of it that no CPU can saturate."""

ENGINE_PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "onnxruntime-cpu": (
        "int8", "int8-any", "int16", "int16-any", "fp32", "fp16",
        "int8-pooled", "int8-any-pooled", "fp32-pooled",
    ),
    "onnxruntime-cuda": ("fp16", "bf16", "fp32"),
    "openvino": ("bf16", "fp32", "int8-static"),
    "tensorrt": ("fp16", "bf16", "fp32", "int8-static", "fp8"),
    "tensorrt-rtx": ("fp16", "bf16", "fp32", "int8-static", "fp8"),
}  # fmt: skip
"""Engine → the precisions it runs, the preferred one first: the fastest, except 8 bits with fixed scales, which lose
the most and are not available on every GPU. Those with pooled sound, the last ones, run only where they are asked for.
An engine that is not listed reports itself what it cannot run."""
_CPU_ENGINES = ("onnxruntime-cpu", "openvino")
_SLOWER_THAN_FP32 = ("int16", "int16-any")
"""On CPUs without 8-bit dot products: three products of two 8-bit pieces take longer than one of float32."""


def exact_here(engine: str, precision: str, exact_on: Sequence[str], features: Collection[str]) -> bool:
    """Whether `engine` computes `precision` exactly on a CPU with `features`.

    Args:
        engine: runs it; GPUs sum 8-bit products in 32 bits.
        precision: of the graph.
        exact_on: the features that the bundle lists for it; empty: those of `EXACT_ON`.
        features: of the CPU, from `ovavel.runtime.system.hardware.cpu_features`.
    """
    needs = exact_on or EXACT_ON.get(precision, (ANY,))
    return engine not in _CPU_ENGINES or ANY in needs or not set(needs).isdisjoint(features)


def is_pooled(precision: Mapping[Graph, str]) -> bool:
    """Whether graphs of these precisions compute half of the tokens of sound."""
    return precision.get("audio") in POOLED


def of_graph(graph: Graph, precision: str) -> str:
    """Return what `precision` means for `graph`: one that pools tokens of sound is its number format elsewhere."""
    return precision if graph == "audio" else POOLED.get(precision, precision)


def any_form(precision: str) -> str:
    """Return the form of `precision` that is exact on any CPU: itself, if it has no other."""
    return _ANY_FORMS.get(precision, precision)


def exact_forms(precision: Precision, features: Collection[str]) -> tuple[Precision, ...]:
    """Return the forms of `precision` that ONNX Runtime computes exactly on a CPU with `features`, the best first.

    "Any CPU" has no features. int8-static has one form: the exporter does not run it as integers.
    """
    if precision not in _ANY_FORMS:
        return (precision,)
    exact = exact_here("onnxruntime-cpu", precision, (), features)
    return (precision, _ANY_FORMS[precision]) if exact else (_ANY_FORMS[precision],)


def default_here(engine: str, default: str, exact: Collection[str], features: Collection[str]) -> str | None:
    """Return the precision `engine` runs on a CPU with `features` if the bundle's own choice is `default`.

    That is `default`, unless it is not `exact` or slower than fp32 there; then the fastest exact one, or None.
    """
    slow = engine == "onnxruntime-cpu" and default in _SLOWER_THAN_FP32 and set(DOT_PRODUCTS).isdisjoint(features)
    return default if default in exact and not slow else preferred(engine, exact, features)


def preferred(engine: str, there: Iterable[str], features: Collection[str] = DOT_PRODUCTS) -> str | None:
    """Return which of the precisions `there` `engine` runs by default; None: it runs none of them.

    On a CPU with `features`, those that are slower there come last.
    """
    return next((each for each in _ranked(engine, features) if each in set(there) and each not in POOLED), None)


def exact_precisions(engine: str, features: Collection[str]) -> tuple[Precision, ...]:
    """Return the precisions that `engine` computes exactly on a CPU with `features`, the fastest first."""
    return tuple(each for each in _ranked(engine, features) if exact_here(engine, each, (), features))


def _ranked(engine: str, features: Collection[str]) -> list[Precision]:
    ranked = list(ENGINE_PRECISIONS.get(engine, ()))
    if set(DOT_PRODUCTS).isdisjoint(features):
        ranked.sort(key=lambda each: each in _SLOWER_THAN_FP32)  # stable
    return ranked
