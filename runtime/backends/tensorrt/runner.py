"""Runs one engine on a GPU: buffers that are made once, a stream of its own, CUDA graphs."""

from __future__ import annotations

import contextlib
import logging
import mmap
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends.tensorrt.cuda import Buffer, Cuda
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import PLAN, Engine
from ovavel.runtime.errors import DeviceError, EngineError, OutputError, UsageError
from ovavel.runtime.files import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EngineRunner", "split_batch"]

# B batch, T segments, D embedding size, C classes with the background last

_log = logging.getLogger(__name__)

_Shape = tuple[int, ...]


def split_batch(count: int, batches: Sequence[int]) -> list[int]:
    """Cut `count` inputs into pieces for profiles of the sizes `batches`; says the profile's size for each piece.

    A piece may be smaller than its profile, but not by half or more: five of (1, 4, 16) go as 4 and 1, nine as 16.
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
    """One engine, loaded. Calls may come from several threads; they take turns."""

    def __init__(self, folder: Path, engine: Engine, library: Library, cuda: Cuda) -> None:
        """Load the plan in `folder`, which `engine` describes, onto the GPU of `cuda`.

        Raises:
            EngineError: the library does not accept the plan.
            DeviceError: the GPU has not enough memory.
        """
        self._lock = threading.Lock()
        self._library, self._cuda = library, cuda
        self._graph, self._batches = engine.made_for.graph, engine.made_for.options.batches
        cuda.select()
        trt = library.module
        library.errors.clear()
        with (folder / PLAN).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self._engine = trt.Runtime(library.logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{library.title} {library.version} cannot load {folder / PLAN} on {cuda.gpu.name}: "
                f"{library.complaint()}. Build it again with `ovavel export engine --overwrite`"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        self._types = {n: np.dtype(trt.nptype(self._engine.get_tensor_dtype(n))) for n in names}
        gpu = re.sub(r"\W+", "-", cuda.gpu.name)
        self._kernels = _KernelCache(folder / f"kernels-{gpu}.cache") if library.rtx else None
        self._slots: list[_Slot] = []
        try:
            for index in range(self._engine.num_optimization_profiles):
                self._slots.append(_Slot(self, index))
        except BaseException:
            self.close()
            raise

    @property
    def captured(self) -> int:
        """How many profiles run as a CUDA graph now."""
        return sum(slot.captured for slot in self._slots)

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run the engine on `inputs`, in the order of its graph, in as many pieces as its profiles ask for.

        Raises:
            UsageError: the inputs are not of the engine's shapes and types, or larger than it was built for.
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
            piece = {n: array if n == "text" else array[start : start + most] for n, array in feed.items()}
            pieces.append(self._slots[0].run(piece, {n: array.shape for n, array in piece.items()}))
        return [np.concatenate(each) for each in zip(*pieces, strict=True)]

    def _check(self, feed: dict[str, NDArray[Any]]) -> None:
        for name, array in feed.items():
            most = tuple(self._engine.get_tensor_profile_shape(name, len(self._slots) - 1)[2])
            free = {"head": 1 if name == "text" else 2}.get(self._graph, 1)
            batched = free == 1 and name != "text" or self._graph != "head"
            wrong = array.ndim != len(most) or array.shape[free:] != most[free:] or 0 in array.shape
            if wrong or array.dtype != self._types[name]:
                takes = ", ".join(["any", *map(str, most[1:])] if batched else map(str, most))
                raise UsageError(
                    f"the {self._graph} graph does not take {name} {array.shape} {array.dtype}: it takes ({takes}) "
                    f"{self._types[name]}"
                )
            if self._graph == "head" and any(a > b for a, b in list(zip(array.shape, most, strict=True))[free - 1 : free]):
                raise UsageError(f"the engine of the head takes {name} of at most {most}, not {array.shape}")

    def close(self) -> None:
        """Give the GPU's memory back. Calling it twice does no harm."""
        with self._lock:
            if self._kernels is not None and self._slots:
                self._kernels.save()
            for slot in self._slots:
                slot.close()
            self._slots = []
            self._engine = None
            self._cuda.close()
