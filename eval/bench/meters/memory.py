"""Memory of a row: resident in this process, and used on its GPU."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

from ovavel.eval.bench.machine import peak_memory_mb, resident_memory_mb
from ovavel.eval.bench.meters.gpu import open_gpu
from ovavel.eval.bench.report import Memory

__all__ = ["MemoryWatch"]


class MemoryWatch:
    """Measures the memory of one row after the other. The first row's memory includes the whole process."""

    def __init__(self, device: str) -> None:
        """Watch `device`: "cpu", "cuda", "cuda:N", or "auto", which is the first GPU where it is one at all."""
        self._gpu = open_gpu("cuda:0" if device == "auto" else device)
        self._before_mb = 0.0
        self._gpu_before_mb: float | None = None
        self._first = True

    def begin(self) -> None:
        """Record the memory before a row is opened."""
        if not self._first:
            gc.collect()
            with suppress(OSError, AttributeError):  # another C library than glibc
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            with suppress(OSError):  # a kernel that does not let the peak be forgotten: it only grows then
                Path("/proc/self/clear_refs").write_text("5")
            self._before_mb = resident_memory_mb()
        self._first = False
        self._gpu_before_mb = self._gpu.memory_mb() if self._gpu else None

    def end(self, device: str) -> Memory:
        """Return what was added since `begin`, at most, by a row that turned out to run on `device`."""
        device_mb = self._gpu.memory_mb() if self._gpu and device != "cpu" else None
        return Memory(
            host_mb=round(max(0.0, peak_memory_mb() - self._before_mb), 1),
            device_mb=None
            if device_mb is None or self._gpu_before_mb is None
            else round(max(0.0, device_mb - self._gpu_before_mb), 1),
        )
