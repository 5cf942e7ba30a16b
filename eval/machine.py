"""What a measurement was made on, for whoever reads the figures later."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ovavel.runtime.backends.onnxruntime import physical_cores

__all__ = ["Machine", "describe_machine", "peak_memory_mb"]

_LIBRARIES = ("ovavel", "numpy", "Pillow", "av", "soxr", "onnxruntime", "onnxruntime-gpu", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One computer at one time."""

    cpu: str
    cores: int
    """Physical cores this process may use."""
    memory_gb: float
    """RAM of the machine, in units of 10^9 bytes."""
    gpus: tuple[str, ...]
    """Name, memory and driver, as nvidia-smi tells them."""
    system: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    """Installed libraries that matter to the figures."""
    date: str
    """UTC, ISO 8601, to the second."""


def describe_machine() -> Machine:
    """Look at this machine."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        cpu=_cpu(),
        cores=physical_cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        gpus=_gpus(),
        system=_system(),
        python=platform.python_version(),
        versions=versions,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def peak_memory_mb() -> float:
    """Most memory this process has had resident so far, in units of 2^20 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) / 1024
    raise RuntimeError("this kernel does not tell VmHWM")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not answer
        return ()
    return tuple(line.strip() for line in told.splitlines() if line.strip())


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"
