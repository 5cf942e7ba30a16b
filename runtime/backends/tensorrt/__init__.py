"""The backends `tensorrt` and `tensorrt-rtx`: engines built from a bundle's graphs on the machine that runs them.

Both libraries share the same code (docs/tensorrt.md). Neither is loaded until a backend is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from ovavel.runtime.backends.tensorrt.backend import TensorRTBackend
    from ovavel.runtime.backends.tensorrt.plan import BuildOptions
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["open_tensorrt", "open_tensorrt_rtx"]


def open_tensorrt(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,  # noqa: ARG001 - every backend is given it; a GPU's host has one thread a graph
    graphs: Sequence[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    options: BuildOptions | None = None,
    engines: Path | None = None,
    progress: Progress = no_progress,
) -> TensorRTBackend:
    """Load `graphs` of `bundle` into TensorRT; missing engines are built first, which takes minutes.

    Args:
        bundle: holds the graphs.
        device: "cuda" or "auto" (the first GPU), or "cuda:N".
        threads: ignored.
        graphs: which graphs to load.
        precision: of vision and audio; None: the bundle's default.
        options: build options; None: accept any existing engine.
        engines: folder of built engines; None: `$XDG_CACHE_HOME/ovavel/engines`.
        progress: called with the stage and the share that is done, while engines are built.

    Raises:
        MissingExtraError: tensorrt or cuda-python is not installed.
        DeviceError: there is no such GPU, or it failed.
        BundleError: the bundle lacks a graph, or this precision of it.
        EngineError: an engine cannot be built, is damaged, or computes in another precision.
    """
    from ovavel.runtime.backends.tensorrt.backend import open_engines

    return open_engines("tensorrt", bundle, device, graphs, precision, options, engines, progress)


def open_tensorrt_rtx(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,  # noqa: ARG001 - as above
    graphs: Sequence[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    options: BuildOptions | None = None,
    engines: Path | None = None,
    progress: Progress = no_progress,
) -> TensorRTBackend:
    """Load `graphs` of `bundle` into TensorRT-RTX, for GeForce and RTX GPUs; otherwise like `open_tensorrt`."""
    from ovavel.runtime.backends.tensorrt.backend import open_engines

    return open_engines("tensorrt-rtx", bundle, device, graphs, precision, options, engines, progress)
