"""What the backends share: the four graphs as methods, whatever runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GraphBackend"]

# B batch, T segments, D embedding size, C classes with the background last

_WARM_UP_SEGMENTS = 10


class GraphBackend(ABC):
    """A `Backend` that runs every graph in the same way: `_compute` is all that a subclass must add."""

    def __init__(self, info: BackendInfo, *, embedding_size: int, classes: int) -> None:
        """Say what was loaded: the graphs of `info.precision`, for embeddings of D and a vocabulary of C classes."""
        self._info = info
        self._embedding_size = embedding_size
        self._classes = classes
        self._closed = False

    @property
    def info(self) -> BackendInfo:
        """What really runs."""
        return self._info

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, 224, 224) float32 → (B, D) float32, unit norm."""
        return self._run("vision", frames)[0]

    def audio(self, log_mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 1, 128, 204) float32 → (B, D) float32, unit norm."""
        return self._run("audio", log_mels)[0]

    def text(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, 77) int64 → (B, D) float32, unit norm."""
        return self._run("text", tokens)[0]

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: NDArray[np.float32]) -> HeadOutput:
        """(B, T, D), (B, T, D) and (C, D), all unit norm → similarities and scores."""
        return HeadOutput(*self._run("head", audio, vision, text))

    def warm_up(self) -> None:
        """Run each graph once, so that the first real window meets no first-run cost."""
        segments = np.zeros((1, _WARM_UP_SEGMENTS, self._embedding_size), np.float32)
        inputs: dict[Graph, tuple[NDArray[Any], ...]] = {
            "vision": (np.zeros((1, 3, 224, 224), np.float32),),
            "audio": (np.zeros((1, 1, 128, 204), np.float32),),
            "text": (np.zeros((1, 77), np.int64),),
            "head": (segments, segments, np.zeros((self._classes, self._embedding_size), np.float32)),
        }
        for graph in self._info.precision:
            self._run(graph, *inputs[graph])

    def close(self) -> None:
        """Give the memory back. Calling it twice does no harm."""
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
        """Refuse a graph that gives something else than its kind does: its rows would be read as other classes."""
        shape: tuple[int, ...] = (len(inputs[0]), self._embedding_size)
        wanted = [shape]
        if graph == "head":
            wanted = [(*inputs[0].shape[:2], len(inputs[2]))] * len(HeadOutput._fields)
        found = [output.shape for output in outputs]
        if found != wanted or any(output.dtype != np.float32 for output in outputs):
            has, needs = (", ".join(map(str, shapes)) or "nothing" for shapes in (found, wanted))
            raise BundleError(
                f"the {graph} graph of the bundle gives {has} and has to give {needs} in float32; export the bundle "
                "again, and do not trust this one"
            )

    def _try_head(self) -> None:
        """Run the head once, which takes no time, and close this backend if it is none.

        Raises:
            BundleError: it does not give a row for every second and a column for every name.
        """
        if "head" not in self._info.precision:
            return
        segments = np.zeros((1, _WARM_UP_SEGMENTS, self._embedding_size), np.float32)
        try:
            self.head(segments, segments, np.zeros((self._classes, self._embedding_size), np.float32))
        except UsageError as error:
            self.close()
            raise BundleError(f"{error}; export the bundle again, and do not trust this one") from error
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        """Run a loaded `graph`; it returns its outputs in their order. Calls may come from several threads.

        Raises:
            UsageError: the inputs are not of the graph's shapes and types.
            DeviceError: the device failed, or ran out of memory.
        """
