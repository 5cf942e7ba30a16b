"""Run one engine on a GPU, with preallocated buffers, its own stream, and CUDA graphs."""

from __future__ import annotations

import contextlib
import logging
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends.tensorrt.cuda import Buffer, Cuda
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import PLAN, TEXT_INPUTS, Engine
from ovavel.runtime.backends.turns import Turns
from ovavel.runtime.errors import DeviceError, EngineError, OutputError, UsageError
from ovavel.runtime.system.files import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EngineRunner", "split_batch"]

# B batch, T segments, D embedding size, C classes with the background last

_log = logging.getLogger(__name__)

_Shape = tuple[int, ...]


def split_batch(count: int, batches: Sequence[int]) -> list[int]:
    """Split `count` inputs into pieces for profiles of the sizes `batches`; return the profile size of each piece.

    A piece may be smaller than its profile, but not by half or more: with (1, 4, 16), 5 become 4 and 1, and 9 use 16.
    """
    sizes, pieces = sorted(batches), []
    while count > 0:
        fitting = next((size for size in sizes if size >= count), sizes[-1])
        smaller = [size for size in sizes if size < fitting]
        if fitting > count and smaller and count <= fitting // 2:
            fitting = smaller[-1]
        pieces.append(fitting)
        count -= fitting
    return pieces


class EngineRunner:
    """A loaded engine. Calls may come from several threads; they are serialized."""

    def __init__(self, folder: Path, engine: Engine, library: Library, cuda: Cuda) -> None:
        """Load the plan in `folder`, which `engine` describes, onto the GPU of `cuda`.

        Raises:
            EngineError: the library does not accept the plan.
            DeviceError: the GPU has not enough memory.
        """
        self._lock = Turns()
        self._library, self._cuda = library, cuda
        self._graph, self._batches = engine.made_for.graph, engine.made_for.options.batches
        cuda.select()
        trt = library.module
        library.errors.clear()
        with (folder / PLAN).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self._runtime = trt.Runtime(library.logger)  # outlives its engine
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{library.title} {library.version} cannot load {folder / PLAN} on {cuda.gpu.name}: "
                f"{library.complaint()}. Build it again with `ovavel bundle engine --overwrite`"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        self._types = {n: np.dtype(trt.nptype(self._engine.get_tensor_dtype(n))) for n in names}
        gpu = re.sub(r"\W+", "-", cuda.gpu.name)
        self._kernels = _KernelCache(folder / f"kernels-{gpu}.cache") if library.rtx else None
        self._configs: list[Any] = []  # contexts do not keep them alive
        self._slots: list[_Slot] = []
        try:
            for profile in range(self._engine.num_optimization_profiles):
                context = self._context(profile)
                self._slots.append(_Slot(context, profile, self._inputs, self._types, cuda, capture=not library.rtx))
        except BaseException:
            self.close()
            raise

    def _context(self, profile: int) -> Any:
        trt = self._library.module
        strategy = (
            trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )  # memory for its own profile, not the largest
        if self._kernels is None:
            context = self._engine.create_execution_context(strategy)
        else:
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            # The library compiles for this GPU now and caches the result; it captures CUDA graphs itself.
            config.set_runtime_cache(self._kernels.of(config))
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            # Kernels that are replaced later would change the last bits of a score.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.NONE
            self._configs.append(config)
            context = self._engine.create_execution_context(config)
        if context is None or not context.set_optimization_profile_async(profile, int(self._cuda.stream)):
            raise DeviceError(
                f"{self._cuda.gpu.name} cannot run the {self._graph} engine: {self._library.complaint()}. If memory "
                "ran out, close other programs or build with fewer --batch"
            )
        self._cuda.wait()
        return context

    @property
    def captured(self) -> int:
        """Number of profiles that replay one of our CUDA graphs; TensorRT-RTX has its own."""
        return sum(slot.captured for slot in self._slots)

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run the engine on `inputs`, in the order of its graph, split into pieces by its profiles.

        Raises:
            UsageError: the inputs do not have the engine's shapes and types, or are larger than it was built for.
            DeviceError: the GPU failed.
        """
        feed = dict(zip(self._inputs, inputs, strict=True))
        self._check(feed)
        count = next(iter(feed.values())).shape[0]
        with self._lock:
            self._cuda.select()
            if self._graph == "head":
                return self._run_head(feed, count)
            (name,) = self._inputs
            pieces, done = [], 0
            for size in split_batch(count, self._batches):
                piece = feed[name][done : done + size]
                answers = self._slots[self._batches.index(size)].run({name: piece}, {name: (size, *piece.shape[1:])})
                pieces.append([answer[: len(piece)] for answer in answers])
                done += size
            return [np.concatenate(each) for each in zip(*pieces, strict=True)]

    def _run_head(self, feed: dict[str, NDArray[Any]], count: int) -> list[NDArray[np.float32]]:
        most, pieces = max(self._batches), []
        for start in range(0, count, most):
            piece = {n: array if n in TEXT_INPUTS else array[start : start + most] for n, array in feed.items()}
            pieces.append(self._slots[0].run(piece, {n: array.shape for n, array in piece.items()}))
        return [np.concatenate(each) for each in zip(*pieces, strict=True)]

    def _check(self, feed: dict[str, NDArray[Any]]) -> None:
        for name, array in feed.items():
            cut = self._graph != "head" or name not in TEXT_INPUTS  # its batch goes in pieces, however large
            shapes = self._engine.get_tensor_profile_shape(name, 0)  # least, usual and greatest
            limits = list(zip(shapes[0], shapes[2], strict=True))
            fits = array.ndim == len(limits) and all(
                low <= size <= high or (cut and axis == 0 and size > 0)
                for axis, (size, (low, high)) in enumerate(zip(array.shape, limits, strict=True))
            )
            if not fits or array.dtype != self._types[name]:
                sizes = [f"{low} to {high}" if low < high else str(low) for low, high in limits]
                raise UsageError(
                    f"the {self._graph} graph does not take {name} {array.shape} {array.dtype}: this engine takes "
                    f"({', '.join(['any', *sizes[1:]] if cut else sizes)}) {self._types[name]}"
                )
        if self._graph == "head" and feed["audio"].shape[:2] != feed["vision"].shape[:2]:
            raise UsageError(
                f"the head graph takes audio and vision of the same clips and seconds, not {feed['audio'].shape} and "
                f"{feed['vision'].shape}"
            )
        if self._graph == "head" and len({len(feed[name]) for name in TEXT_INPUTS}) > 1:
            raise UsageError("the head graph takes as many texts for audio as for vision")

    def warm_up(self) -> None:
        """Run every profile twice: the first run compiles, the second is captured. Caches compiled kernels."""
        with self._lock:
            self._cuda.select()
            for slot in self._slots:
                for _ in range(2):
                    slot.run({}, slot.usual)
            if self._kernels is not None:
                self._kernels.save()

    def close(self) -> None:
        """Free the GPU memory. May be called twice."""
        with self._lock:
            self._cuda.select_to_give_back()  # another thread may call this, with another GPU current
            for slot in self._slots:
                slot.close()
            self._slots, self._configs = [], []
            self._kernels = None  # before the engine that made them
            self._engine = self._runtime = None
            self._cuda.close()


class _KernelCache:
    """Kernels that TensorRT-RTX compiled for this GPU, cached in a file beside the plan for the next start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None

    def of(self, config: Any) -> Any:
        """Return the cache shared by all contexts; `config` creates it on first use."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            with contextlib.suppress(FileNotFoundError):
                if not self._cache.deserialize(self._path.read_bytes()):
                    _log.info("%s was written for another driver or GPU; rebuilding it", self._path)
        return self._cache

    def save(self) -> None:
        try:
            atomic_write(self._path, bytes(memoryview(self._cache.serialize())), private=True)
        except OutputError as error:  # the next start compiles again
            _log.warning("%s", error)


class _Slot:
    """An execution context for one profile, with buffers of its largest shapes."""

    def __init__(
        self,
        context: Any,
        profile: int,
        inputs: Sequence[str],
        types: dict[str, np.dtype[Any]],
        cuda: Cuda,
        *,
        capture: bool,
    ) -> None:
        """Allocate. With `capture`, shapes that occur twice in a row become a CUDA graph."""
        self._context, self._cuda, self._types, self._capture = context, cuda, types, capture
        self._inputs, self._outputs = list(inputs), [name for name in types if name not in inputs]
        shapes = {name: context.engine.get_tensor_profile_shape(name, profile) for name in inputs}
        self.usual: dict[str, _Shape] = {name: tuple(each[1]) for name, each in shapes.items()}
        self._shapes: dict[str, _Shape] = {}
        self._runs, self._settled = 0, 1
        self._graphs: list[Any] = []
        self._buffers: dict[str, Buffer] = {}
        self._set_shapes({name: tuple(each[2]) for name, each in shapes.items()})
        try:
            for name in types:
                self._buffers[name] = Buffer(cuda, self._bytes(name))
                if not context.set_tensor_address(name, self._buffers[name].device):
                    raise DeviceError(f"the engine does not take the buffer of {name}; build it again")
        except BaseException:  # memory may have run out, and nothing else refers to these buffers
            self.close()
            raise

    @property
    def captured(self) -> bool:
        return bool(self._graphs)

    def run(self, feed: dict[str, NDArray[Any]], shapes: dict[str, _Shape]) -> list[NDArray[np.float32]]:
        """Run on `feed`, whose arrays may fill only the first rows of `shapes`; the other rows are undefined."""
        if shapes != self._shapes:
            self._set_shapes(shapes)
        for name, array in feed.items():
            self._view(name)[: len(array)] = array
        if self._runs == self._settled and self._capture:
            self._record()
        if self._graphs:
            self._cuda.launch(self._graphs[0])
        else:
            self._enqueue()
        self._cuda.wait()
        self._runs += 1
        return [self._view(name).copy() for name in self._outputs]

    def _set_shapes(self, shapes: dict[str, _Shape]) -> None:
        if self._graphs:  # recording costs as much as many runs, so shapes that keep changing must last longer
            self._settled *= 2
        self._forget()
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise DeviceError(f"the engine refuses {name} of shape {shape}; build it again")
        made = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        self._shapes, self._all_shapes, self._runs = shapes, {**shapes, **made}, 0

    def _bytes(self, name: str) -> int:
        return int(np.prod(self._all_shapes[name])) * self._types[name].itemsize

    def _view(self, name: str) -> NDArray[Any]:
        return self._buffers[name].view(self._all_shapes[name], self._types[name])

    def _enqueue(self) -> None:
        for name in self._inputs:
            self._cuda.upload(self._buffers[name], self._bytes(name))
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            raise DeviceError("the engine could not be started on the GPU; check the driver with nvidia-smi")
        for name in self._outputs:
            self._cuda.download(self._buffers[name], self._bytes(name))

    def _record(self) -> None:
        """Capture copying in, running and copying out as a CUDA graph; the previous run did all lazy set-up."""
        try:
            with self._cuda.capturing(self._graphs):
                self._enqueue()
        except DeviceError as error:
            self._capture = False
            _log.warning("running without a CUDA graph, which is slower: %s", error)

    def _forget(self) -> None:
        for graph in self._graphs:
            self._cuda.destroy(graph)
        self._graphs = []

    def close(self) -> None:
        self._forget()
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers = {}
        self._context = None
