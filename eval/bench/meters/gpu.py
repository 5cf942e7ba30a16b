"""Memory, clocks and energy of an NVIDIA GPU, read through the driver's library NVML."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any, Self

__all__ = ["ClockWatch", "Gpu", "open_gpu"]

_LIBRARY = "libnvidia-ml.so.1"
_EVERY_S = 0.1
_SM, _MEMORY = 1, 2  # nvmlClockType_t
_PERFORMANCE_LIMITS = {0x4: "power", 0x20: "heat", 0x40: "heat", 0x8: "hardware", 0x80: "power brake"}
"""nvmlClocksEventReasons that hold the clocks down."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Gpu:
    """One GPU. Values that the driver does not report are None."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def memory_mb(self) -> float | None:
        """Used memory of the whole device, in units of 2^20 bytes."""
        memory = _Memory()
        return None if self._ask("nvmlDeviceGetMemoryInfo", memory) is None else memory.used / 2**20

    def energy_j(self) -> float | None:
        """Energy since the driver was loaded; Volta and newer."""
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if energy_mj is None else energy_mj / 1e3

    def clocks(self) -> str | None:
        """Clocks of the cores and of the memory, power, temperature, and what holds the clocks down, in words."""
        readings = []
        for name, kind in (("cores", _SM), ("memory", _MEMORY)):
            now = self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), kind)
            most = self._ask("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), kind)
            if now is not None:
                readings.append(f"{name} {now} MHz" + (f" of {most}" if most else ""))
        power_mw = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        limit_mw = self._ask("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
        if power_mw is not None:
            readings.append(f"{power_mw / 1e3:.0f} W" + (f" of {limit_mw / 1e3:.0f}" if limit_mw else ""))
        heat = self._ask("nvmlDeviceGetTemperature", ctypes.c_uint(), 0)
        if heat is not None:
            readings.append(f"{heat} °C")
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        if reasons is not None:
            limits = sorted({name for bit, name in _PERFORMANCE_LIMITS.items() if reasons & bit})
            readings.append(f"limited by {' and '.join(limits)}" if limits else "not held down")
        return ", ".join(readings) or None

    def _ask(self, function: str, answer: Any, *arguments: Any) -> int | None:
        """Call `function(handle, *arguments, &answer)` and return the answer; None if the driver has none."""
        try:
            call = getattr(self._library, function)
        except AttributeError:  # an older driver
            return None
        if call(self._handle, *arguments, ctypes.byref(answer)) != 0:
            return None
        return int(getattr(answer, "value", 0))


class ClockWatch:
    """Reads a GPU's clocks while it works: right after the work they are those of an idle GPU."""

    def __init__(self, gpu: Gpu | None, *, every_s: float = _EVERY_S) -> None:
        self.reading: str | None = None
        """The last reading during the work; None where it was too short, or the driver reports nothing."""
        self._gpu = gpu
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ovavel-clocks", daemon=True)

    def __enter__(self) -> Self:
        if self._gpu:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._gpu:
            self._thread.join()

    def _watch(self) -> None:
        assert self._gpu
        while not self._over.wait(self._every_s):
            reading = self._gpu.clocks()
            if not self._over.is_set():  # otherwise it may be one from after the work
                self.reading = reading


def open_gpu(device: str, *, library: Any = None) -> Gpu | None:
    """Return the GPU that CUDA calls `device` ("cuda:N"); None for a CPU, or where there is no driver to ask.

    Also None if it is ambiguous which GPU that is: by default CUDA lists the fastest first, and the driver sorts by
    bus. CUDA_DEVICE_ORDER=PCI_BUS_ID makes CUDA do so too, and CUDA_VISIBLE_DEVICES may name GPUs by their UUIDs.
    """
    if not device.startswith("cuda"):
        return None
    try:
        library = library or ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    number = int(device.partition(":")[2] or 0)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if visible and number >= len(visible):
        return None
    name = visible[number] if visible else str(number)
    handle, count = ctypes.c_void_p(), ctypes.c_uint()
    if library.nvmlInit_v2() != 0:
        return None
    if name.isdecimal():
        if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and (
            library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0 or count.value != 1
        ):
            return None
        found = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
    else:
        found = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    return Gpu(library, handle) if found == 0 else None
