"""The names of the processors, for those who ask what a figure was measured on."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import uuid
from functools import cache
from pathlib import Path

__all__ = ["cpu_name", "device_name", "gpu_name"]


@cache
def cpu_name() -> str:
    """Return what the CPU calls itself; a CPU that has no name is named with this machine."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    if names:
        return str(names[0]).strip()
    # ARM's have numbers in the place of a name, and maybe cores of several kinds.
    cores = re.findall(r"^CPU implementer\s*:\s*(\w+)$.*?^CPU part\s*:\s*(\w+)$", text, re.MULTILINE | re.DOTALL)
    if cores:
        return "CPU " + ", ".join(dict.fromkeys(f"implementer {maker} part {part}" for maker, part in cores))
    return f"unnamed {platform.machine()} CPU of machine {_machine()}"


@cache
def gpu_name(index: int) -> str:
    """Return the name of the NVIDIA GPU that this process knows as number `index`.

    CUDA tells it, or else nvidia-smi where it surely means the same GPU: by itself CUDA puts the fastest first, and
    nvidia-smi goes by the bus. A GPU that neither names is named with this machine.
    """
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    known_as = visible[index] if index < len(visible) else str(index)
    name = _name_from_cuda(index)
    if name is None:
        names = set(_ask_nvidia_smi())
        if len(names) > 1:
            sure = not known_as.isdigit() or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
            names = set(_ask_nvidia_smi(f"--id={known_as}")) if sure else set()
        name = names.pop() if len(names) == 1 else None
    return name or f"unnamed GPU {known_as} of machine {_machine()}"


def _name_from_cuda(index: int) -> str | None:
    try:
        from cuda.bindings import runtime

        error, properties = runtime.cudaGetDeviceProperties(index)
    except (ImportError, RuntimeError):  # not installed; versions 12 raise the other where there is no driver
        return None
    return None if int(error) else properties.name.split(b"\0")[0].decode(errors="replace").strip() or None


def _ask_nvidia_smi(*which: str) -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *which]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not answer
        return []
    return [line.strip() for line in told.splitlines() if line.strip()]


def _machine() -> str:
    """Tell this machine from others without giving its id away."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    return hashlib.sha256(f"ovavel {known or uuid.getnode()}".encode()).hexdigest()[:12]


def device_name(device: str) -> str:
    """Return the name of a backend's device: "cpu", "cuda" or "cuda:N"."""
    if device.startswith("cuda"):
        return gpu_name(int(device.partition(":")[2] or 0))
    return cpu_name()
