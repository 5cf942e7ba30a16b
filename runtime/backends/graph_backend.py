"""Base class of the backends: the four graphs as methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.graphs import Encoders, EncoderSpec, Graph
from ovavel.runtime.errors import BundleError, UsageError
from ovavel.runtime.types import BUFFER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
    from ovavel.runtime.types import Sense

__all__ = ["GraphBackend"]

# B batch, T segments, D embedding size of a sense, C classes with the background last


class GraphBackend(ABC):
    """A `Backend` that runs every graph in the same way; subclasses implement `_compute`."""

    def __init__(self, info: BackendInfo, *, encoders: Encoders, classes: int) -> None:
        """Say what was loaded: the graphs of `info.precision`, for `encoders` and a vocabulary of C classes."""
        self._info = info
        self._encoders = encoders
        self._classes = classes
        self._closed = False

    @property
    def info(self) -> BackendInfo:
        """What actually runs."""
        return self._info

    @property
    def encoders(self) -> Encoders:
        """Shapes of what the encoders take and give, and the preprocessing that they were made for."""
        return self._encoders

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, …) float32 prepared frames → (B, D) float32, unit norm."""
        return self._run("vision", frames)[0]

    def audio(self, sounds: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, …) float32 prepared waveforms → (B, D) float32, unit norm."""
        return self._run("audio", sounds)[0]

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        """(B, L) int64 tokens → (B, D) float32, unit norm: what the embeddings of `sense` are compared with."""
        return self._run(self._encoders.of(sense).text, tokens)[0]

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        """(B, T, D of audio), (B, T, D of vision) and C texts, all unit norm → similarities and scores."""
        return HeadOutput(*self._run("head", audio, vision, text.audio, text.vision))

    def warm_up(self) -> None:
        """Run each graph once, so that the first real window has no first-run cost."""
        for graph in self._info.precision:
            self._run(graph, *self._empty(graph))

    def _empty(self, graph: Graph) -> tuple[NDArray[Any], ...]:
        """Inputs of zeros that fit `graph`."""
        if graph == "head":
            sizes = self._encoders.sizes
            segments = (np.zeros((1, BUFFER, size), np.float32) for size in sizes)
            return (*segments, *(np.zeros((self._classes, size), np.float32) for size in sizes))
        if graph == "vision" or graph == "audio":
            return (np.zeros((1, *self._encoders.of(graph).shape), np.float32),)
        return (np.zeros((1, self._of(graph).context_length), np.int64),)

    def _of(self, graph: Graph) -> EncoderSpec:
        """The encoder that `graph` is of, or whose texts it embeds."""
        audio, vision = self._encoders.audio, self._encoders.vision
        return audio if graph == "audio" or (graph != "vision" and graph == audio.text) else vision

    def close(self) -> None:
        """Free the memory. May be called twice."""
        self._closed = True

    def _run(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        if self._closed or graph not in self._info.precision:
            holds = "none: it is closed" if self._closed else ", ".join(self._info.precision)
            raise UsageError(f"this backend was not opened with the {graph} graph; it holds {holds}")
        outputs = self._compute(graph, *inputs)
        self._check_outputs(graph, inputs, outputs)
        return outputs

    def _check_outputs(
        self, graph: Graph, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[np.float32]]
    ) -> None:
        """Refuse a graph with outputs of the wrong shape or type: its rows would be taken for other classes."""
        wanted: list[tuple[int, ...]]
        if graph != "head":
            wanted = [(len(inputs[0]), self._of(graph).embedding_size)]
        else:
            wanted = [(*inputs[0].shape[:2], len(inputs[2]))] * len(HeadOutput._fields)
        found = [output.shape for output in outputs]
        if found != wanted or any(output.dtype != np.float32 for output in outputs):
            has, needs = (", ".join(map(str, shapes)) or "nothing" for shapes in (found, wanted))
            raise BundleError(
                f"the {graph} graph of the bundle returns {has} but must return {needs} in float32; do not trust this "
                "bundle, and export it again"
            )

    def _try_head(self) -> None:
        """Run the head once, which takes no time, and close this backend if its output is wrong.

        Raises:
            BundleError: the output does not have a row for every second and a column for every name.
        """
        if "head" not in self._info.precision:
            return
        try:
            self._run("head", *self._empty("head"))
        except UsageError as error:
            self.close()
            raise BundleError(f"{error}; do not trust this bundle, and export it again") from error
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        """Run a loaded `graph` and return its outputs in order. Calls may come from several threads.

        Raises:
            UsageError: the inputs do not have the graph's shapes and types.
            DeviceError: the device failed, or ran out of memory.
        """
