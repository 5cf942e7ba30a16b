"""Minimum cost of a window: weights to read and operations to compute (docs/method.md, Encoders)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.economy.work import ENCODERS, EXTRA_KEYS, PATCH, TOKENS, flops, is_known, tower_sizes

__all__ = ["ENCODERS", "flops", "is_known", "parameters", "weight_bytes"]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}


def parameters(config: Mapping[str, Any], graph: Graph) -> int:
    """Return the number of weights of an encoder.

    Raises:
        BundleError: `config` is not the size of an ImageBind.
    """
    width, blocks, size = tower_sizes(config, graph)
    block = 12 * width * width + 13 * width + 2 * EXTRA_KEYS[graph] * width
    stem = PATCH[graph] * width + (1 + TOKENS[graph]) * width + 2 * width
    return stem + blocks * block + 2 * width + width * size


def weight_bytes(bundle: Bundle, graph: Graph, info: BackendInfo) -> int:
    """Return the bytes of weights that `graph` reads: its files in the bundle, else computed from its precision."""
    precision = info.precision[graph]
    file = bundle.manifest.graphs.get(graph, {}).get(precision)
    if info.name == "torch" or file is None:  # PyTorch's weights, or an engine that makes a precision of its own
        return parameters(bundle.manifest.model.config, graph) * _BYTES[precision]
    files = bundle.manifest.files
    return sum(files[name].bytes for name in bundle.graph_files(graph, precision))
