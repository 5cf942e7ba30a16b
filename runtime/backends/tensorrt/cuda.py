"""The CUDA runtime calls needed to run an engine, through cuda-python; failures become DeviceError."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.ctypeslib import as_array

from ovavel.runtime.backends.tensorrt.library import EXTRAS, LibraryName
from ovavel.runtime.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Buffer", "Cuda"]

_CHECK = "check the driver with nvidia-smi"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU of this machine."""

    index: int
    name: str
    compute_capability: str
    """As "8.9"."""
    memory_bytes: int


def cuda_runtime(library: LibraryName) -> Any:
    """Import `cuda.bindings.runtime`, which the extra of `library` brings.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingExtraError("cuda-python", EXTRAS[library], need=f"Running {library} on a GPU") from error
    return runtime


class Cuda:
    """One GPU with its own stream. Use it from one thread at a time."""

    def __init__(self, library: LibraryName, index: int) -> None:
        """Use GPU number `index`.

        Raises:
            MissingExtraError: cuda-python is not installed.
            DeviceError: there is no such GPU, or no driver.
        """
        self._runtime = cuda_runtime(library)
        self._frees = True
        try:
            count = self.call("cudaGetDeviceCount")
        except DeviceError as error:
            raise DeviceError(f"{library} needs an NVIDIA GPU, and none is available: {error}") from error
        if index >= count:
            raise DeviceError(f"there is no device 'cuda:{index}': this machine has {count} NVIDIA GPUs; {_CHECK}")
        properties = self.call("cudaGetDeviceProperties", index)
        self.gpu = Gpu(
            index=index,
            name=properties.name.split(b"\0")[0].decode(errors="replace").strip(),
            compute_capability=f"{properties.major}.{properties.minor}",
            memory_bytes=int(properties.totalGlobalMem),
        )
        self.select()
        self._stream: Any = None

    @property
    def driver(self) -> str:
        """Newest CUDA version that the driver supports, such as "13.0"."""
        number = self.call("cudaDriverGetVersion")
        return f"{number // 1000}.{number % 1000 // 10}"

    @property
    def stream(self) -> Any:
        """The stream, created on first use; it does not synchronize with the default stream."""
        if self._stream is None:
            self._stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        return self._stream

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the function `name` of the CUDA runtime and return its result.

        Raises:
            DeviceError: it failed.
        """
        try:
            error, *answer = getattr(self._runtime, name)(*arguments)
        except RuntimeError as failed:  # versions 12 raise it where there is no driver
            raise DeviceError(f"{name} failed: {failed}; {_CHECK}") from failed
        if int(error):
            _, text = self._runtime.cudaGetErrorString(error)
            raise DeviceError(f"{name} failed: {text.decode()} ({error.name}); {_CHECK}")
        return answer[0] if answer else None

    def give_back(self, name: str, *arguments: Any) -> None:
        """Call the function `name`, which frees something. The first failure is logged; none is raised.

        After a GPU error every call fails; the remaining memory must still be freed, and only the first error matters.
        """
        try:
            self.call(name, *arguments)
        except DeviceError as error:
            if self._frees:
                _log.warning("could not free all memory of %s: %s", self.gpu.name, error)
            self._frees = False

    def select_to_give_back(self) -> None:
        """Like `select`, before freeing memory: the first failure is logged; none is raised."""
        self.give_back("cudaSetDevice", self.gpu.index)

    def select(self) -> None:
        """Make this GPU current in the calling thread."""
        self.call("cudaSetDevice", self.gpu.index)

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Enqueue the copy of the first `nbytes` of `buffer` from the host to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", buffer.device, buffer.address, nbytes, kind, self.stream)

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Enqueue the copy of the first `nbytes` of `buffer` from the GPU to the host."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", buffer.address, buffer.device, nbytes, kind, self.stream)

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        self.call("cudaStreamSynchronize", self.stream)

    @contextlib.contextmanager
    def capturing(self, graphs: list[Any]) -> Any:
        """Record what is enqueued in the block into a CUDA graph, without running it, and append it to `graphs`."""
        # Check only this thread's calls: other threads may allocate memory in the meantime.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.stream, mode)
        try:
            yield
        except BaseException:
            with contextlib.suppress(DeviceError):
                begun = self.call("cudaStreamEndCapture", self.stream)  # leaves the stream usable
                if begun is not None and int(begun):  # 0 where nothing was recorded
                    self.give_back("cudaGraphDestroy", begun)
            raise
        graph = self.call("cudaStreamEndCapture", self.stream)
        try:
            graphs.append(self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.give_back("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """Enqueue all of a CUDA graph at once."""
        self.call("cudaGraphLaunch", graph, self.stream)

    def destroy(self, graph: Any) -> None:
        """Free a CUDA graph."""
        self.give_back("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Free the stream. May be called twice."""
        if self._stream is not None:
            self.give_back("cudaStreamDestroy", self._stream)
            self._stream = None


class Buffer:
    """Memory on the GPU and page-locked memory of the same size on the host."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        """Allocate `nbytes` on GPU and host, zeroed.

        Raises:
            DeviceError: there is not enough memory.
        """
        self._cuda = cuda
        self.device: int = cuda.call("cudaMalloc", nbytes)
        try:
            self.address: int = cuda.call("cudaMallocHost", nbytes)
        except DeviceError:
            cuda.give_back("cudaFree", self.device)
            raise
        self._bytes = as_array((ctypes.c_ubyte * nbytes).from_address(self.address))
        self._bytes[:] = 0

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the host memory as an array, which may be smaller than the buffer."""
        count = int(np.prod(shape)) * dtype.itemsize
        view: NDArray[Any] = self._bytes[:count].view(dtype).reshape(shape)
        return view

    def free(self) -> None:
        """Free both; views must not be used afterwards."""
        self._cuda.give_back("cudaFree", self.device)
        self._cuda.give_back("cudaFreeHost", self.address)
