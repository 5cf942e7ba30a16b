"""A GPU made of host memory: the calls to CUDA and to an engine that the TensorRT backends make, and what they rely on.

It checks what a real one would punish: memory that is used after it was given back or never given back, copies beyond
a buffer, work that was not waited for, a CUDA graph of other addresses than those it replays. Engines compute with
ONNX Runtime. What it cannot tell is whether the real libraries agree with it: `test_gpu.py` of TensorRT does.
"""

# ruff: noqa: N802, N815 - the names are CUDA's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

Work = Callable[[], None]


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Stream:
    def __init__(self) -> None:
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None

    def put(self, work: Work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


class SimulatedCuda:
    """Stands for the module `cuda.bindings.runtime`."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = Kind
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, *, name: str = "Simulated GPU", memory_bytes: int = 2**30) -> None:
        self.name, self.memory_bytes = name, memory_bytes
        self.capture_works = True
        self.current: int | None = None
        self.takes_addresses = True
        self.starts_while_recording = True
        self.broken = False
        """After an error that stays: all work fails, and all freeing, though the memory is gone."""
        self.launches = 0
        self._memory: dict[int, tuple[str, Any, int]] = {}
        self._streams: dict[int, Stream] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._number = 1

    def left(self) -> int:
        """Pieces of memory, streams and graphs that were not given back."""
        return len(self._memory) + len(self._streams) + len(self._graphs)

    def stream(self, number: int) -> Stream:
        return self._streams[number]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def cudaGetErrorString(self, error: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, error.name.encode()

    def cudaGetDeviceCount(self) -> tuple[Error, int]:
        return Error.cudaSuccess, 1

    def cudaDriverGetVersion(self) -> tuple[Error, int]:
        return Error.cudaSuccess, 13010

    def cudaSetDevice(self, index: int) -> tuple[Error]:
        self.current = index
        return (Error.cudaSuccess if index == 0 else Error.cudaErrorInvalidValue,)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Error, Any]:
        name = self.name.encode() + b"\0\xff left over\0"
        return Error.cudaSuccess, SimpleNamespace(name=name, major=8, minor=9, totalGlobalMem=self.memory_bytes)

    def _allocate(self, kind: str, size: int) -> tuple[Error, int | None]:
        if sum(each[2] for each in self._memory.values()) + size > self.memory_bytes:
            return Error.cudaErrorMemoryAllocation, None
        block = (ctypes.c_ubyte * size)(*())
        ctypes.memset(block, 0xFF, size)  # NaN, as long as nobody writes
        self._memory[ctypes.addressof(block)] = kind, block, size
        return Error.cudaSuccess, ctypes.addressof(block)

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> tuple[Error, int | None]:
        return self._allocate("host", size)

    def _free(self, kind: str, address: int) -> tuple[Error]:
        found = self._memory.pop(address, (None,))
        if self.broken:
            return (Error.cudaErrorIllegalAddress,)
        return (Error.cudaSuccess if found[0] == kind else Error.cudaErrorInvalidValue,)

    def cudaFree(self, address: int) -> tuple[Error]:
        return self._free("device", address)

    def cudaFreeHost(self, address: int) -> tuple[Error]:
        return self._free("host", address)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:
        number = self._next()
        self._streams[number] = Stream()
        return Error.cudaSuccess, number

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:
        return (Error.cudaSuccess if self._streams.pop(stream, None) else Error.cudaErrorInvalidValue,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        if self.broken:
            return (Error.cudaErrorIllegalAddress,)
        if self._streams[stream].recording is not None:
            return (Error.cudaErrorStreamCaptureUnsupported,)
        while self._streams[stream].queue:
            self._streams[stream].queue.pop(0)()
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: Kind, stream: int) -> tuple[Error]:
        places = ("device", "host") if kind is Kind.cudaMemcpyHostToDevice else ("host", "device")
        for address, place in zip((to, source), places, strict=True):
            found = self._memory.get(address)
            if found is None or found[0] != place or count > found[2]:
                return (Error.cudaErrorInvalidValue,)
        self._streams[stream].put(lambda: ctypes.memmove(to, source, count) and None)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Error]:
        if not self.capture_works:
            return (Error.cudaErrorStreamCaptureUnsupported,)
        self._streams[stream].recording = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, Any]:
        recorded, self._streams[stream].recording = self._streams[stream].recording, None
        number = self._next()
        self._graphs[number] = recorded or []
        return Error.cudaSuccess, number

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Error, int]:
        number = self._next()
        self._graphs[number] = self._graphs[graph]
        return Error.cudaSuccess, number

    def _drop(self, graph: int) -> tuple[Error]:
        return (Error.cudaErrorInvalidValue if self._graphs.pop(graph, None) is None else Error.cudaSuccess,)

    cudaGraphDestroy = cudaGraphExecDestroy = _drop

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:
        self.launches += 1
        self._streams[stream].queue.extend(self._graphs[graph])
        return (Error.cudaSuccess,)

    def array(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        kind, block, size = self._memory[address]
        count = int(np.prod(shape)) * dtype.itemsize
        assert kind == "device" and count <= size
        return np.ctypeslib.as_array(block)[:count].view(dtype).reshape(shape)


class SimulatedEngine:
    """Stands for an ICudaEngine: an ONNX file with the profiles of a built engine."""

    def __init__(self, cuda: SimulatedCuda, onnx: Path, profiles: list[dict[str, tuple]]) -> None:
        self.cuda, self.profiles = cuda, profiles
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self.session.get_inputs()]
        self._names = [*self._inputs, *(value.name for value in self.session.get_outputs())]
        self.num_io_tensors = len(self._names)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self._inputs else "output"

    def get_tensor_dtype(self, name: str) -> type:
        return np.int64 if name == "tokens" else np.float32

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple:
        return self.profiles[profile][name]

    def create_execution_context(self, strategy_or_config: Any) -> SimulatedContext:
        return SimulatedContext(self)

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(
            create_runtime_cache=SimulatedKernels,
            set_execution_context_allocation_strategy=lambda strategy: None,
            set_runtime_cache=lambda cache: True,
        )


class SimulatedKernels:
    """Stands for an IRuntimeCache, which takes back what it gave and nothing else."""

    CONTENT = b"kernels of the simulated GPU"

    def __init__(self) -> None:
        self.taken = False

    def serialize(self) -> bytes:
        return self.CONTENT

    def deserialize(self, content: bytes) -> bool:
        self.taken = content == self.CONTENT
        return self.taken


class SimulatedContext:
    """Stands for an IExecutionContext."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self.engine = engine
        self._profile: int | None = None
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        least, _, most = self.engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if len(self._shapes) == 1:
            (shape,) = self._shapes.values()
            return shape[0], self.engine.session.get_outputs()[0].shape[1]
        return (*self._shapes["audio"][:2], self._shapes["audio_text"][0])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return self.engine.cuda.takes_addresses

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.cuda.stream(stream).recording is not None and not self.engine.cuda.starts_while_recording:
            return False
        shapes = dict(self._shapes)
        self.engine.cuda.stream(stream).put(lambda: self._compute(shapes))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]]) -> None:
        engine = self.engine
        feed = {}
        for name, shape in shapes.items():
            array = engine.cuda.array(self._addresses[name], shape, np.dtype(engine.get_tensor_dtype(name)))
            feed[name] = np.nan_to_num(array)  # what pads a batch is of no meaning
        outputs = engine.session.run(None, feed)
        for value, output in zip(engine.session.get_outputs(), outputs, strict=True):
            engine.cuda.array(self._addresses[value.name], output.shape, output.dtype)[:] = output


class SimulatedTensorRT:
    """Stands for the module `tensorrt`, as far as running goes."""

    TensorIOMode = SimpleNamespace(INPUT="input")
    ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE=2)
    nptype = staticmethod(lambda kind: kind)

    def __init__(self, engines: dict[bytes, SimulatedEngine]) -> None:
        self._engines = engines

    def Runtime(self, logger: object) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self._engines.get(bytes(plan)))
