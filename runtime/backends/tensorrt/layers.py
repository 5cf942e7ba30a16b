"""Check the number format of a network's matrix products, and that the built engine keeps to it.

A strongly typed network computes exactly in the types of its ONNX file. They are read from the parsed network here, and
compared with the layers of the engine where the library exposes them.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ovavel.runtime.errors import EngineError

__all__ = ["EngineLayer", "MatrixProduct", "check_engine", "check_network", "engine_layers", "logged_layers"]

_log = logging.getLogger(__name__)

_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM")
_PASSED_THROUGH = ("SHUFFLE", "IDENTITY", "CAST", "UNSQUEEZE", "SQUEEZE")
_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
"""The library's DataType names → ours."""
_WORDS = (  # as spelled in the libraries' layer lists; the first match counts
    ("bf16", re.compile(r"\b(bfloat16|bf16)\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\b(half|fp16)\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\b(fp8|float8\w*|e4m3\w*)\b", re.IGNORECASE)),
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\b(float|fp32)\b", re.IGNORECASE)),
)
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*?)(?: \[profile \d+\])?\]")
_TENSOR = re.compile(r"Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")
_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: .*?, Inputs: (?P<taken>.*), Outputs: .*?, Metadata: (?P<origin>.*)$"
)

REQUIRED_SHARE: Mapping[str, float] = {"fp32": 1.0, "fp16": 0.8, "bf16": 0.8, "int8": 0.5, "fp8": 0.5}
"""Precision → minimum share of the products with weights that must be in it: a few are kept in higher precision on
purpose, and more of them at 8 bits."""
_TELLING_SHARE = 0.5
"""Minimum share of the products that must be found in an engine's layers for a conclusion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixProduct:
    """One matrix product or convolution of a parsed network."""

    name: str
    """Name of the ONNX node it comes from."""
    precision: str
    weights: bool
    """Whether one of its factors is a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """One layer of a built engine."""

    name: str
    origins: frozenset[str]
    """The ONNX nodes it was built from."""
    taken: frozenset[str]
    """Precisions of its input tensors and weights, scalars excluded."""


def check_network(network: Any, precision: str, *, where: str) -> list[MatrixProduct]:
    """Return the products that have weights, or all products if none has.

    Raises:
        EngineError: too few of them are in `precision`.
    """
    products = list(_products(network))
    counted = [each for each in products if each.weights] or products
    there = Counter(each.precision for each in counted)
    if not counted or there[precision] < REQUIRED_SHARE.get(precision, 1.0) * len(counted):
        has = ", ".join(f"{count} in {name}" for name, count in there.most_common()) or "none at all"
        raise EngineError(
            f"{where} does not compute in {precision}: of its matrix products there are {has}. "
            f"Export the bundle again with {precision}"
        )
    return counted


def _products(network: Any) -> Iterator[MatrixProduct]:
    producers: dict[str, Any] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        producers.update((layer.get_output(i).name, layer) for i in range(layer.num_outputs))
        if layer.type.name not in _PRODUCTS:
            continue
        factors = [layer.get_input(i) for i in range(layer.num_inputs)]
        sources = [_source(factor, producers) for factor in factors if factor is not None]
        quantized = [layer.get_input(0) for layer in sources if layer is not None and layer.type.name == "DEQUANTIZE"]
        types = {_TYPES.get(tensor.dtype.name, tensor.dtype.name.lower()) for tensor in quantized}
        if (
            len(quantized) < len(sources) or len(types) != 1
        ):  # with only one factor in 8 bits, the arithmetic is not 8-bit
            types = {_TYPES.get(layer.get_output(0).dtype.name, layer.get_output(0).dtype.name.lower())}
        origin = _origins(str(layer.metadata)) or {layer.name}
        yield MatrixProduct(
            name=min(origin),
            precision=types.pop(),
            weights=layer.type.name == "CONVOLUTION" or any(map(_is_constant, sources, [producers] * len(sources))),
        )


def _source(tensor: Any, producers: Mapping[str, Any]) -> Any:
    """Return the layer that produces `tensor`, skipping those that only change its shape; None for an input."""
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name in _PASSED_THROUGH:
        layer = producers.get(layer.get_input(0).name)
    return layer


def _is_constant(layer: Any, producers: Mapping[str, Any]) -> bool:
    while layer is not None and layer.type.name in ("DEQUANTIZE", "QUANTIZE"):
        layer = _source(layer.get_input(0), producers)
    return layer is not None and layer.type.name == "CONSTANT"


def _origins(metadata: str) -> frozenset[str]:
    return frozenset(_ORIGIN.findall(metadata))


def logged_layers(text: str) -> list[EngineLayer]:
    """Parse the layer list that TensorRT-RTX logs after building an engine."""
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            tensors = _TENSOR.findall(match["taken"])
            taken = {_word(kind) for sizes, kind in tensors if sizes.strip() not in ("", "1")}
            found.append(EngineLayer(name=match["name"], origins=_origins(match["origin"]), taken=frozenset(taken)))
    return found


def engine_layers(information: str) -> list[EngineLayer]:
    """Parse the JSON of an EngineInspector; empty if it contains only layer names or cannot be parsed.

    The plan is finished and the network already checked, so an unknown format must not discard them.
    """
    try:
        return _read_layers(json.loads(information)["Layers"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("the layers of the engine cannot be read, so only the network was checked: %r", error)
        return []


def _read_layers(layers: Iterable[Any]) -> list[EngineLayer]:
    found = []
    for layer in layers:
        if not isinstance(layer, dict):
            continue
        tensors = [*layer.get("Inputs", ()), *layer.get("Constants", ())]
        taken = {_word(_type_text(tensor)) for tensor in tensors if tensor.get("Dimensions") not in ([], [1])}
        origins = _origins(str(layer.get("Metadata", "")))
        found.append(EngineLayer(name=str(layer.get("Name")), origins=origins, taken=frozenset(taken)))
    return found


def _type_text(tensor: Mapping[str, Any]) -> str:
    """Version 10 uses "Format/Datatype", version 11 "DataType"."""
    return " ".join(str(value) for key, value in tensor.items() if "datatype" in key.lower())


def _word(text: str) -> str:
    return next((precision for precision, pattern in _WORDS if pattern.search(text)), text.lower())


def check_engine(
    layers: Iterable[EngineLayer], products: Iterable[MatrixProduct], precision: str, *, where: str
) -> int | None:
    """Return how many of `products` the engine's layers compute in `precision`; None if too few were found.

    Raises:
        EngineError: the engine computes too many of the network's `precision` products in another precision.
    """
    by_origin: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for origin in layer.origins:
            by_origin.setdefault(origin, []).append(layer)
    asked = [each for each in products if each.precision == precision]
    seen = [each for each in asked if each.name in by_origin]
    kept = [each for each in seen if any(precision in layer.taken for layer in by_origin[each.name])]
    if len(kept) < REQUIRED_SHARE.get(precision, 1.0) * len(seen):
        other = next(each.name for each in seen if each not in kept)
        took = sorted(set().union(*(layer.taken for layer in by_origin[other])))
        raise EngineError(
            f"{where} was requested in {precision}, but the engine computes {len(seen) - len(kept)} of {len(seen)} "
            f"matrix products differently ({other}: {', '.join(took)}); use another precision"
        )
    return len(kept) if kept and len(kept) >= _TELLING_SHARE * len(asked) else None
