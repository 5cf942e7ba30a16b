"""Description of the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ovavel.runtime.system.hardware import cpu_features, cpu_name, physical_cores

__all__ = ["Machine", "describe_machine", "peak_memory_mb", "resident_memory_mb", "status_mb"]

_LIBRARIES = (
    *("ovavel", "numpy", "Pillow", "av", "soxr"),
    *("onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt-rtx", "openvino"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """State of a computer at one time."""

    cpu: str
    cpu_features: tuple[str, ...] = ()
    """CPU features that matter to arithmetic."""
    cores: int
    """Physical cores this process may use."""
    memory_gb: float
    """RAM of the machine, in units of 10^9 bytes."""
    cpu_clock: str = "unknown"
    """Clock, governor and load at the start of the run."""
    gpus: tuple[str, ...]
    """Name, memory and driver of each GPU, from nvidia-smi."""
    system: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    """Installed libraries that affect the figures."""
    date: str
    """UTC, ISO 8601, to the second."""


def describe_machine() -> Machine:
    """Describe this machine."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        cpu=cpu_name(),
        cpu_features=cpu_features(),
        cores=physical_cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        cpu_clock=_cpu_clock(),
        gpus=_gpus(),
        system=_system(),
        python=platform.python_version(),
        versions=versions,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in units of 2^20 bytes."""
    return status_mb("VmHWM")


def resident_memory_mb() -> float:
    """Return the current resident memory of this process in units of 2^20 bytes."""
    return status_mb("VmRSS")


def status_mb(wanted: str) -> float:
    """Return a line of /proc/self/status, such as VmHWM, in units of 2^20 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) / 1024
    raise RuntimeError(f"this kernel does not report {wanted}")


def _cpu_clock() -> str:
    """Return the current clock of the fastest core, its governor, and the system load."""
    readings = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        readings.append(f"{max(clocks):.0f} MHz")
    except (OSError, ValueError):  # not Linux, or a processor that does not report it
        readings.append("clock unknown")
    try:
        readings.append(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip())
    except OSError:
        readings.append("governor unknown")
    return ", ".join([*readings, f"load {os.getloadavg()[0]:.2f}"])


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not respond
        return ()
    return tuple(line.strip() for line in output.splitlines() if line.strip())


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release().partition('-')[0]}"
