"""The names of the processors, for those who ask what a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

__all__ = ["cpu_name", "device_name", "gpu_name"]


@cache
def cpu_name() -> str:
    """Return what the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def gpu_name(index: int) -> str:
    """Return the name of the NVIDIA GPU that this process knows as number `index`, as nvidia-smi tells it."""
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    known_as = visible[index] if index < len(visible) else str(index)
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={known_as}"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not answer
        return f"GPU {index}"
    return told.strip().splitlines()[0] if told.strip() else f"GPU {index}"


def device_name(device: str) -> str:
    """Return the name of a backend's device: "cpu", "cuda" or "cuda:N"."""
    if device.startswith("cuda"):
        return gpu_name(int(device.partition(":")[2] or 0))
    return cpu_name()
