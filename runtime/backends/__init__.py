"""Backends: libraries that run graphs, found through the entry-point group `ovavel.backends`.

An entry point names a function `open(bundle, *, device, threads, graphs, precision, **options) -> Backend`, so that a
package outside ovavel can add one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import MissingExtraError, UsageError
from ovavel.runtime.plugins import plugins
from ovavel.runtime.system.bounds import MOST_WORKERS
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.graphs import Encoders
    from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
    from ovavel.runtime.types import Sense

__all__ = ["Backend", "BackendInfo", "BuildsEngines", "BuiltEngine", "HeadOutput", "backend_names", "open_backend"]

# B batch, T segments, L tokens of a text, D embedding size of a sense, C classes with the background last

_EXTRAS = {"torch": "train", "safetensors": "train"}


class HeadOutput(NamedTuple):
    """Output of the temporal head for B clips of T segments (docs/method.md, Decision)."""

    audio_similarity: NDArray[np.float32]
    """(B, T, C) cosine similarities."""
    vision_similarity: NDArray[np.float32]
    """(B, T, C) cosine similarities."""
    score: NDArray[np.float32]
    """(B, T, C) fused, min-max scaled over the classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What actually runs, as the library reports it after loading; never what was merely requested."""

    name: str
    engine: str
    """Backend and kind of device, e.g. "onnxruntime-cuda"; a bundle has defaults for each."""
    device: str
    """"cpu", "cuda:N", or the address of a server."""
    provider: str
    """Execution provider as the library names it, e.g. "CPUExecutionProvider"."""
    precision: Mapping[Graph, str]
    threads: int
    batch: int = 1
    """Windows to encode at once: more than 1 only where that is faster than one by one."""
    concurrent: bool = False
    """True if running vision and audio at the same time is faster."""
    versions: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Runs the graphs it was opened with. Calls may come from several threads."""

    @property
    def info(self) -> BackendInfo:
        """What actually runs."""

    @property
    def encoders(self) -> Encoders:
        """Shapes of what the encoders take and give, and the preprocessing that they were made for."""

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, …) float32 prepared frames → (B, D) float32, unit norm; `encoders.vision` gives shape and D."""

    def audio(self, sounds: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, …) float32 prepared waveforms → (B, D) float32, unit norm; `encoders.audio` gives shape and D."""

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        """(B, L) int64 tokens → (B, D) float32, unit norm: what the embeddings of `sense` are compared with."""

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        """(B, T, D of audio), (B, T, D of vision) and C texts, all unit norm → similarities and scores."""

    def warm_up(self) -> None:
        """Run each graph once, so that the first real window has no first-run cost."""

    def close(self) -> None:
        """Free the memory. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine that was built from one graph of a bundle."""

    precision: str
    """The requested precision."""
    sha256: str
    """Hash of the built engine."""
    products: int
    """Matrix products with weights."""
    in_precision: int
    """How many of them compute in `precision`, as far as the engine exposes its layers."""
    built_now: bool
    """Whether it was built while opening the backend, and so has not been compared yet."""


@runtime_checkable
class BuildsEngines(Protocol):
    """A backend that runs engines built from the bundle's graphs."""

    @property
    def engines(self) -> Mapping[Graph, BuiltEngine]:
        """The built engines by graph."""


def backend_names() -> list[str]:
    """Names of the installed backends."""
    return sorted(entry.name for entry in plugins("ovavel.backends"))


def open_backend(
    bundle: Bundle,
    *,
    name: str = "onnxruntime",
    device: str = "auto",
    threads: int | None = None,
    graphs: Iterable[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> Backend:
    """Load `graphs` of `bundle` with the backend `name` on `device`: "cpu", "cuda", "cuda:N", "auto" or an address.

    `precision` is of vision and audio; None: the bundle's default for the engine. See `Bundle.precision`. `progress` is
    called with a stage and the share that is done by a backend that first builds something, and by no other.

    Raises:
        UsageError: there is no such backend, or `threads` is out of range for this machine.
        MissingExtraError: its library is not installed.
        DeviceError: the device is unavailable; never a silent fall-back.
        BundleError: the bundle lacks a requested graph or precision.
    """
    if threads is not None and not 1 <= threads <= MOST_WORKERS:
        raise UsageError(f"threads must be from 1 to {MOST_WORKERS} on this machine, not {threads}")
    found = [entry for entry in plugins("ovavel.backends") if entry.name == name]
    if not found:
        raise UsageError(f"there is no backend {name!r}; known: {', '.join(backend_names()) or 'none'}")
    try:
        open_it = found[0].load()
    except ModuleNotFoundError as error:
        library = error.name or name
        raise MissingExtraError(library, _EXTRAS.get(library, name), need=f"The backend {name!r}") from error
    if "progress" in signature(open_it).parameters:
        options["progress"] = progress
    backend: Backend = open_it(
        bundle, device=device, threads=threads, graphs=tuple(graphs), precision=precision, **options
    )
    return backend
