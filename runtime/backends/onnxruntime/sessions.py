"""ONNX Runtime's sessions: opened from hashed memory, and shared within a process."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from ovavel.runtime.backends.onnxruntime.cuda import check_placement, cuda_options
from ovavel.runtime.backends.onnxruntime.libraries import missing_libraries
from ovavel.runtime.backends.turns import Turns
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.hashed import GraphFiles
from ovavel.runtime.errors import BundleError, DeviceError
from ovavel.runtime.system.hardware import physical_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["open_session", "open_sessions", "read_no_files", "reason", "shared_sessions"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_LONGEST_MESSAGE = 300
_DTYPES = {
    1: "f4",
    2: "u1",
    3: "i1",
    4: "u2",
    5: "i2",
    6: "i4",
    7: "i8",
    9: "?",
    10: "f2",
    11: "f8",
    12: "u4",
    13: "u8",
} | {
    16: "u2",
    **dict.fromkeys((17, 18, 19, 20), "u1"),
}
"""ONNX data type → NumPy type; bfloat16 and float8 types are held as raw bits."""
_NO_FOLDER = "/dev/null"
"""A folder that cannot contain files."""
Name = TypeVar("Name", bound=str)

_Key: TypeAlias = tuple[int, tuple[tuple[str, str], ...]]
"""Threads, and name and hash of each file."""

_lock = threading.Lock()  # of the two below; held for the bookkeeping alone
_open: WeakValueDictionary[_Key, Any] = WeakValueDictionary()
"""Sessions on the CPU that some backend of this process uses."""
_opening: WeakValueDictionary[_Key, threading.Lock] = WeakValueDictionary()
"""Held while such a session is opened, so that none is opened twice."""


def shared_sessions(bundle: Bundle, precision: Mapping[Graph, str], threads: int) -> dict[Graph, Any]:
    """Return a session on the CPU for each graph; backends of one process share those of the same files and threads.

    A session may run in several threads at once. It is freed with the last backend that uses it.

    Raises:
        BundleError: the bundle lacks a graph, a file was altered, or a graph cannot be loaded.
    """
    # The head is too small to benefit from more threads.
    among = {name: threads if name != "head" else 1 for name in precision}
    hashes = {file: entry.sha256 for file, entry in bundle.manifest.files.items()}
    keys: dict[Graph, _Key] = {
        name: (among[name], tuple((file, hashes[file]) for file in bundle.graph_files(name, each)))
        for name, each in precision.items()
    }
    files = bundle.load(precision)
    return _at_once({name: partial(_shared_session, keys[name], each, among[name]) for name, each in files.items()})


def _shared_session(key: _Key, files: GraphFiles, threads: int) -> Any:
    with _lock:
        turn = _opening.setdefault(key, threading.Lock())
    with turn:
        with _lock:
            session = _open.get(key)
        if session is None:
            session = open_session(files, None, threads)
            with _lock:
                _open[key] = session
            return session
    with files.loading():  # a damaged copy of what is in use is refused, too
        pass
    return session


def open_sessions(files: Mapping[Name, GraphFiles], threads: Mapping[Name, int]) -> dict[Name, Any]:
    """Load graphs on the CPU at the same time: ONNX Runtime packs the weights of one on a single core.

    Raises:
        BundleError: one cannot be loaded.
    """
    return _at_once({name: partial(open_session, each, None, threads[name]) for name, each in files.items()})


def _at_once(jobs: Mapping[Name, Callable[[], Any]]) -> dict[Name, Any]:
    with ThreadPoolExecutor(max(1, len(jobs)), thread_name_prefix="ovavel-opening") as pool:
        running = {name: pool.submit(job) for name, job in jobs.items()}
    return {name: each.result() for name, each in running.items()}


def open_session(files: GraphFiles, gpu: int | None, threads: int, record: bool = False) -> Any:
    """Load a graph on GPU number `gpu`, or on CPU threads; `record` enables CUDA graphs on the GPU.

    ONNX Runtime gets the hashed bytes and reads no files.

    Raises:
        BundleError: it cannot be loaded.
        DeviceError: the GPU is unavailable, or some nodes would run on the CPU.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only; they are raised as well
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads spin between operators: waking them a thousand times per window takes a tenth of its time on two cores
    # and saves no processor time. After the window they stop, freeing the cores for decoding and the other graphs.
    # With more threads than cores, spinning threads would block working ones.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads <= physical_cores() else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    values = read_no_files(options, files)
    provider: str | tuple[str, dict[str, str]] = _CPU
    if gpu is not None:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider = (_CUDA, cuda_options(gpu, record=record))
    wanted = _CPU if gpu is None else _CUDA
    try:
        with files.loading():
            session = ort.InferenceSession(bytes(files.graph.data), options, providers=[provider], enable_fallback=0)
    except BundleError:
        raise
    except Exception as error:
        # ONNX Runtime's errors share no base class; those about the file are recognized by name.
        if gpu is None or type(error).__name__ in ("InvalidProtobuf", "InvalidGraph", "NoModel"):
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {files.path}: {reason(error)}. Export or copy the bundle "
                "again"
            ) from error
        raise DeviceError(
            f"ONNX Runtime {ort.__version__} cannot run {files.path.name} on cuda:{gpu}: {reason(error)}. "
            f"{missing_libraries(ort)}, or use --device cpu"
        ) from error
    got = session.get_providers()
    if not got or got[0] != wanted:
        raise DeviceError(
            f"{wanted} was requested, but ONNX Runtime {ort.__version__} uses "
            f"{', '.join(got) or 'nothing'}: its libraries "
            f"did not load. {missing_libraries(ort)}, or use --device cpu"
        )
    session.disable_fallback()
    session.used = files, values  # keep their memory alive: the session refers to it
    # Each run needs memory of its own, and gains nothing beside one that keeps all cores busy.
    session.turn = Turns() if gpu is None and threads >= physical_cores() else contextlib.nullcontext()
    if gpu is not None:
        check_placement(session, _CUDA, files.path.name)
    return session


def read_no_files(options: Any, files: GraphFiles) -> list[Any]:
    """Make ONNX Runtime take the weights of `files` from memory and read no files.

    Returns:
        Values that must outlive the session.
    """
    import onnxruntime as ort

    # Otherwise ONNX Runtime might take the bytes for its own format, and it looks for missing weights in a folder, by
    # default the current one.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    names, values = [], []
    for tensor in files.tensors:
        data, dtype = files.weights[tensor.location].data, np.dtype(_DTYPES[tensor.data_type])
        flat: NDArray[Any] = np.frombuffer(data, dtype, tensor.length // dtype.itemsize, tensor.offset)
        array = np.require(flat.reshape(tensor.dims), requirements="A")
        names.append(tensor.name)
        values.append(ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type))
    if names:
        # The function that takes whole files in memory would copy them.
        options.add_external_initializers(names, values)
    return values


def reason(error: Exception) -> str:
    """Return ONNX Runtime's message on one line, without its error number."""
    line = " ".join(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).split())
    return (line or type(error).__name__)[:_LONGEST_MESSAGE].rstrip(". ")
