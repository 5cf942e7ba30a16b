"""ONNX Runtime backend for CPUs and NVIDIA GPUs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.backends.onnxruntime.cuda import (
    BATCHES,
    FixedBatches,
    check_head,
    check_recording,
)
from ovavel.runtime.backends.onnxruntime.libraries import load_cuda_libraries
from ovavel.runtime.backends.onnxruntime.sessions import open_session, reason, shared_sessions
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import DeviceError, MissingExtraError, UsageError
from ovavel.runtime.install import installed_runtimes, replace_runtime
from ovavel.runtime.system.hardware import physical_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["OnnxRuntimeBackend", "auto_device", "open_onnxruntime"]

# B batch, T segments, D embedding size, C classes with the background last

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_log = logging.getLogger(__name__)


def open_onnxruntime(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    graphs: Sequence[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    cuda_graphs: bool = True,
) -> OnnxRuntimeBackend:
    """Load `graphs` of `bundle`.

    Args:
        bundle: holds the graphs.
        device: "cpu", "cuda" (the first GPU), "cuda:N", or "auto" (see `auto_device`); `info.device` names the result.
        threads: cores that one graph may use on the CPU; None: all cores of this process.
        graphs: which graphs to load; only these may be called.
        precision: of vision and audio; None: the bundle's default for the CPU or for CUDA.
        cuda_graphs: on a GPU, record vision and audio once and replay them. False launches every kernel separately,
            which is slower and uses less GPU memory.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        DeviceError: onnxruntime cannot be loaded, is too old to use the GPU this way, or the device is unavailable.
            There is no fallback.
        BundleError: the bundle lacks a graph or this precision of it, or it cannot be loaded.
        UsageError: `threads` is not positive, or the engine does not run this precision.
    """
    onnxruntime = _library()
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    cores = threads or physical_cores()
    if device == "auto":
        device = auto_device()
    if device == "cpu":
        return OnnxRuntimeBackend(bundle, None, cores, graphs, precision)
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    offered = _CUDA in onnxruntime.get_available_providers()
    if not match or not offered:
        has = "auto, cpu" + (", cuda, cuda:N" if offered else "")
        fix = f"; for an NVIDIA GPU replace onnxruntime: {replace_runtime('gpu')}" if match else ""
        raise DeviceError(
            f"there is no device {device!r}: ONNX Runtime {onnxruntime.__version__} offers {has} here{fix}"
        )
    return OnnxRuntimeBackend(bundle, int(match[1] or 0), cores, graphs, precision, cuda_graphs)


@cache
def auto_device() -> str:
    """Return the device that "auto" stands for: "cuda" if ONNX Runtime can use a GPU, else "cpu".

    The CPU is chosen only if no GPU can be reached; this is logged if ONNX Runtime was built for GPUs. Later failures
    on the GPU (a graph, a precision, too little memory) are errors.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        DeviceError: it cannot be loaded.
    """
    onnxruntime = _library()
    if _CUDA not in onnxruntime.get_available_providers():
        return "cpu"
    load_cuda_libraries(onnxruntime)
    try:
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no base class
        _log.warning("running on the CPU, because ONNX Runtime cannot use a GPU: %s", reason(error))
        return "cpu"
    return "cuda"


def _library() -> Any:
    try:
        import onnxruntime

        onnxruntime.get_available_providers()
    except (ImportError, OSError, AttributeError) as error:
        if not installed_runtimes():
            raise MissingExtraError("onnxruntime", "cpu", need="Running a bundle") from error
        raise DeviceError(
            f"ONNX Runtime is installed but cannot be loaded ({error}); reinstall it: {replace_runtime()}"
        ) from error
    return onnxruntime


class OnnxRuntimeBackend(GraphBackend):
    """Graphs loaded into ONNX Runtime. Open it with `open_onnxruntime`."""

    def __init__(
        self,
        bundle: Bundle,
        gpu: int | None,
        threads: int,
        graphs: Sequence[Graph],
        asked: str | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        """Load `graphs` in the `asked` precision on GPU number `gpu`, or on CPU threads if it is None."""
        import onnxruntime

        engine = "onnxruntime-cpu" if gpu is None else "onnxruntime-cuda"
        precision = {name: bundle.precision(name, engine, asked) for name in graphs}
        if asked is None:
            _note_slower(bundle, engine, precision)
        if gpu is not None:
            load_cuda_libraries(onnxruntime)
        self._device = "cpu" if gpu is None else f"cuda:{gpu}"
        recorded = [name for name in graphs if name in ("vision", "audio")] if gpu is not None and cuda_graphs else []
        if recorded:
            check_recording(onnxruntime.__version__)
        if gpu is not None and "head" in graphs:
            check_head(onnxruntime.__version__)
        self._sessions: dict[Graph, Any] = (
            shared_sessions(bundle, precision, threads)
            if gpu is None
            else {
                name: open_session(files, gpu, threads, name in recorded)
                for name, files in bundle.load(precision).items()
            }
        )
        self._recorded: dict[Graph, FixedBatches] = {}
        for name in recorded:
            try:
                self._recorded[name] = FixedBatches(self._sessions[name], "cuda", gpu or 0)
            except Exception as error:  # onnxruntime's errors share no base class
                self._end()
                raise DeviceError(
                    f"the {name} graph cannot be recorded on {self._device}: {reason(error)}. If memory ran out, "
                    "close other programs; otherwise open the backend with cuda_graphs=False, or use --device cpu"
                ) from error
        info = BackendInfo(
            name="onnxruntime",
            engine=engine,
            device=self._device,
            provider=_CPU if gpu is None else _CUDA,
            precision=precision,
            threads=threads,
            batch=1 if gpu is None else BATCHES[-1],
            concurrent=gpu is not None,  # on the CPU each encoder keeps all cores busy by itself
            versions={"onnxruntime": onnxruntime.__version__},
        )
        super().__init__(info, encoders=bundle.manifest.encoders, classes=len(bundle.vocabulary.names))
        self._try_head()

    def close(self) -> None:
        """Free the memory. May be called twice."""
        super().close()
        self._end()

    def _end(self) -> None:
        for each in self._recorded.values():
            each.close()
        self._recorded = {}
        self._sessions = {}

    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        session = self._sessions[graph]
        names = [value.name for value in session.get_inputs()]
        if len(names) != len(inputs):
            raise UsageError(f"the {graph} graph takes {', '.join(names) or 'nothing'}, and {len(inputs)} inputs came")
        feed = dict(zip(names, inputs, strict=True))
        try:
            if graph in self._recorded:
                return [self._recorded[graph].run(*inputs)]
            with session.turn:
                outputs: list[NDArray[np.float32]] = session.run(None, feed)
        except Exception as error:
            shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in feed.items())
            if isinstance(error, UsageError) or type(error).__name__ == "InvalidArgument":
                raise UsageError(f"the {graph} graph does not take {shapes}: {reason(error)}") from error
            raise DeviceError(
                f"the {graph} graph failed on {self._device} for {shapes}: {reason(error)}. If memory ran out, "
                "close other programs or use another device"
            ) from error
        return outputs


def _note_slower(bundle: Bundle, engine: str, precision: Mapping[Graph, str]) -> None:
    """Log that fp32 runs because this CPU does not support the bundle's default: correct but slower."""
    for name, each in precision.items():
        default = bundle.default_precision(name, engine)
        if each == "fp32" != default:
            _log.warning(
                "running in fp32, which is slower: %s of this bundle needs a CPU with 8-bit dot products. "
                "`ovavel bundle export --cpu any` writes a form for every CPU",
                default,
            )
            return
