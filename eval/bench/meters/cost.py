"""Minimum cost of a window: weights to read and operations to compute (docs/method.md, Encoders)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import BundleError

__all__ = ["ENCODERS", "flops", "is_known", "parameters", "weight_bytes"]

# N tokens, K keys that each of them looks at, W width of a tower, D embedding size

ENCODERS: tuple[Graph, ...] = ("vision", "audio")

_TOKENS = {"vision": 257, "audio": 229}
_EXTRA_KEYS = {"vision": 0, "audio": 1}
_PATCH = {"vision": 3 * 14 * 14, "audio": 16 * 16}
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether `config` is the size of an ImageBind; the operations of other encoders are not counted."""
    return "embedding_size" in config


def flops(config: Mapping[str, Any], graph: Graph) -> float:
    """Operations of an encoder on one window: of its matrix products, an addition and a multiplication each.

    In the last block only the class token asks; its keys and values are those of all tokens.

    Raises:
        BundleError: `config` is not the size of an ImageBind.
    """
    width, blocks, size = _sizes(config, graph)
    tokens, keys = _TOKENS[graph], _TOKENS[graph] + _EXTRA_KEYS[graph]

    def block(asking: int) -> float:
        project = 2 * tokens * width * 3 * width
        attend = 2 * 2 * asking * keys * width
        rest = 2 * asking * width * width * (1 + 4 + 4)
        return project + attend + rest

    stem = 2 * (tokens - 1) * _PATCH[graph] * width
    return float(stem + (blocks - 1) * block(tokens) + block(1) + 2 * width * size)


def parameters(config: Mapping[str, Any], graph: Graph) -> int:
    """Return the number of weights of an encoder.

    Raises:
        BundleError: `config` is not the size of an ImageBind.
    """
    width, blocks, size = _sizes(config, graph)
    block = 12 * width * width + 13 * width + 2 * _EXTRA_KEYS[graph] * width
    stem = _PATCH[graph] * width + (1 + _TOKENS[graph]) * width + 2 * width
    return stem + blocks * block + 2 * width + width * size


def weight_bytes(bundle: Bundle, graph: Graph, info: BackendInfo) -> int:
    """Return the bytes of weights that `graph` reads: its files in the bundle, else computed from its precision."""
    precision = info.precision[graph]
    file = bundle.manifest.graphs.get(graph, {}).get(precision)
    if info.name == "torch" or file is None:  # PyTorch's weights, or an engine that makes a precision of its own
        return parameters(bundle.manifest.model.config, graph) * _BYTES[precision]
    files = bundle.manifest.files
    return sum(files[name].bytes for name in bundle.graph_files(graph, precision))


def _sizes(config: Mapping[str, Any], graph: Graph) -> tuple[int, int, int]:
    try:
        tower = config[graph]
        return int(tower["width"]), int(tower["blocks"]), int(config["embedding_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the manifest does not say the size of the {graph} encoder: {error!r}") from error
