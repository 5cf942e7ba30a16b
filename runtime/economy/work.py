"""What encoding a second costs, in operations (docs/method.md, Encoders)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.precision import POOLED
from ovavel.runtime.errors import BundleError

__all__ = [
    "ENCODERS",
    "EXTRA_KEYS",
    "PATCH",
    "POOLED_TOKENS",
    "TOKENS",
    "Work",
    "flops",
    "is_known",
    "tower_sizes",
    "work_of",
]

# N tokens, K keys that each of them looks at, W width of a tower, D embedding size

ENCODERS: tuple[Graph, ...] = ("vision", "audio")
TOKENS = {"vision": 257, "audio": 229}
POOLED_TOKENS = 121
"""Of sound, in a precision that pools it."""
EXTRA_KEYS = {"vision": 0, "audio": 1}
PATCH = {"vision": 3 * 14 * 14, "audio": 16 * 16}


class Work(NamedTuple):
    """Operations on one second, in 1e9."""

    vision_gflop: float
    audio_gflop: float

    def of(self, pictures: int, sounds: int) -> float:
        """Operations of encoding so many, in 1e9."""
        return self.vision_gflop * pictures + self.audio_gflop * sounds


def work_of(config: Mapping[str, Any], precision: Mapping[Graph, str]) -> Work | None:
    """Return the operations of both encoders in `precision`; None where `config` is not an ImageBind's size."""
    if not is_known(config):
        return None
    try:
        work = {graph: flops(config, graph, precision.get(graph, "fp32")) / 1e9 for graph in ENCODERS}
    except BundleError:
        return None
    return Work(work["vision"], work["audio"])


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether `config` is the size of an ImageBind; the operations of other encoders are not counted."""
    return "embedding_size" in config


def flops(config: Mapping[str, Any], graph: Graph, precision: str = "fp32") -> float:
    """Operations of an encoder on one window: of its matrix products, an addition and a multiplication each.

    In the last block only the class token asks; its keys and values are those of all tokens. `precision` matters where
    it pools the tokens of sound.

    Raises:
        BundleError: `config` is not the size of an ImageBind.
    """
    width, blocks, size = tower_sizes(config, graph)
    tokens = POOLED_TOKENS if graph == "audio" and precision in POOLED else TOKENS[graph]
    keys = tokens + EXTRA_KEYS[graph]

    def block(asking: int) -> float:
        project = 2 * tokens * width * 3 * width
        attend = 2 * 2 * asking * keys * width
        rest = 2 * asking * width * width * (1 + 4 + 4)
        return project + attend + rest

    stem = 2 * (tokens - 1) * PATCH[graph] * width
    return float(stem + (blocks - 1) * block(tokens) + block(1) + 2 * width * size)


def tower_sizes(config: Mapping[str, Any], graph: Graph) -> tuple[int, int, int]:
    """Width, blocks and embedding size of an encoder.

    Raises:
        BundleError: `config` is not the size of an ImageBind.
    """
    try:
        tower = config[graph]
        return int(tower["width"]), int(tower["blocks"]), int(config["embedding_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the manifest does not say the size of the {graph} encoder: {error!r}") from error
