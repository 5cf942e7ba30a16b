"""OpenVINO backend for CPUs; in bf16 it uses the matrix units of recent ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.backends.turns import Turns
from ovavel.runtime.bundle.external_data import with_addresses
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.hashed import GraphFiles
from ovavel.runtime.errors import BundleError, DeviceError, MissingExtraError, UsageError
from ovavel.runtime.system.hardware import physical_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["compile_graph", "load_openvino", "open_openvino"]

_ENGINE = "openvino"
_HINTS = {"fp32": ("f32",), "bf16": ("bf16",), "int8-static": ("bf16", "f32")}
"""Precision → OpenVINO's precision hints for all but 8-bit products; the first that the CPU supports is used."""
_LONGEST_MESSAGE = 300


def load_openvino() -> Any:
    """Import OpenVINO and return it, without its telemetry.

    At each import this sends an event to its vendor, and it keeps an id of the user in the home folder. A program that
    has imported it before decides for itself.

    Raises:
        ImportError, OSError: it is not installed, or cannot be loaded.
    """
    silenced = "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # OpenVINO does without what cannot be imported
    try:
        import openvino
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    return openvino


def open_openvino(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    graphs: Sequence[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
) -> OpenVinoBackend:
    """Load `graphs` of `bundle`.

    Args:
        bundle: holds the graphs.
        device: "cpu" or "auto", which mean the same.
        threads: cores that one graph may use; None: all cores of this process.
        graphs: which graphs to load; only these may be called.
        precision: of vision and audio; None: the first of bf16, fp32 and int8-static that the bundle has.

    Raises:
        MissingExtraError: openvino is not installed.
        DeviceError: another device, or this CPU cannot compute in `precision`. There is no fallback.
        BundleError: the bundle lacks a graph or this precision of it, or it cannot be loaded.
        UsageError: `threads` is not positive, or the engine does not run this precision.
    """
    try:
        load_openvino()
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", need="The backend 'openvino'") from error
    if device not in ("auto", "cpu"):
        raise DeviceError(f"the backend openvino runs on the device cpu here, not on {device!r}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return OpenVinoBackend(bundle, threads or physical_cores(), graphs, precision)


class OpenVinoBackend(GraphBackend):
    """Graphs compiled by OpenVINO. Open it with `open_openvino`."""

    def __init__(self, bundle: Bundle, threads: int, graphs: Sequence[Graph], asked: str | None = None) -> None:
        """Compile `graphs` in the `asked` precision for `threads` cores."""
        openvino = load_openvino()
        precision = {graph: bundle.precision(graph, _ENGINE, asked) for graph in graphs}
        self._locks = {graph: Turns() for graph in graphs}
        self._requests: dict[Graph, Any] = {
            # The head is too small to benefit from more threads.
            graph: compile_graph(
                files,
                precision[graph],
                threads if graph != "head" else 1,
                batch=None if graph == "head" else 1,
            )
            for graph, files in bundle.load(precision).items()
        }
        info = BackendInfo(
            name="openvino",
            engine=_ENGINE,
            device="cpu",
            provider=openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"),
            precision=precision,
            threads=threads,
            versions={"openvino": openvino.__version__.partition("-")[0]},
        )
        super().__init__(info, encoders=bundle.manifest.encoders, classes=len(bundle.vocabulary.names))
        self._try_head()

    def close(self) -> None:
        """Free the memory. May be called twice."""
        super().close()
        self._requests = {}

    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        if graph == "head":
            return self._infer(graph, inputs)
        # Compiled for a batch of 1: faster than a dynamic batch, and larger batches gain nothing on a CPU.
        rows = [self._infer(graph, [inputs[0][i : i + 1]])[0] for i in range(len(inputs[0]))]
        return [np.concatenate(rows)]

    def _infer(self, graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        request = self._requests[graph]
        with self._locks[graph]:  # a request holds the buffers of one call
            try:
                answer = request.infer(dict(enumerate(inputs)))
            except RuntimeError as error:
                shapes = ", ".join(f"{array.shape} {array.dtype}" for array in inputs)
                raise UsageError(f"the {graph} graph does not take {shapes}: {_reason(error)}") from error
            return [np.array(answer[i]) for i in range(len(answer))]


def compile_graph(files: GraphFiles, precision: str, threads: int, *, batch: int | None = None) -> Any:
    """Compile a graph for the CPU and return an infer request, which handles one call at a time.

    Args:
        files: the graph; it must have one input if `batch` is given.
        precision: of the graph: "fp32", "bf16" or "int8-static".
        threads: cores to use.
        batch: fixed batch size, which is faster than a dynamic one.

    Raises:
        BundleError: OpenVINO cannot load it.
        DeviceError: this CPU cannot compute in `precision`.
    """
    openvino = load_openvino()
    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = next((hint for hint in _HINTS[precision] if hint == "f32" or hint.upper() in able), None)
    if hint is None:
        raise DeviceError(f"this CPU has no {precision} arithmetic; use another --precision, or --backend onnxruntime")
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    # OpenVINO reads weights from memory if the model contains their addresses.
    arrays = {name: np.frombuffer(file.data, np.uint8) for name, file in files.weights.items()}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    graph = with_addresses(files.graph.data, files.tensors, addresses)
    try:
        with files.loading():
            model = core.read_model(graph)
            if batch is not None:
                (shape,) = (each.partial_shape for each in model.inputs)
                model.reshape([batch, *(shape[axis].get_length() for axis in range(1, len(shape)))])
            compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO cannot load {files.path}: {_reason(error)}. Export or copy the bundle again"
        ) from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != hint:
        raise DeviceError(f"{precision} was requested, but OpenVINO would compute in {used}; use --backend onnxruntime")
    request = compiled.create_infer_request()
    request.used = arrays  # it uses their memory for as long as it lives
    return request


def _reason(error: Exception) -> str:
    """Return OpenVINO's message on one line."""
    return " ".join(str(error).split())[-_LONGEST_MESSAGE:].rstrip(". ")
