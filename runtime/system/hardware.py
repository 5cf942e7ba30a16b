"""Names of the processors, and features of the CPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import subprocess
import uuid
from functools import cache
from pathlib import Path

__all__ = ["cpu_features", "cpu_name", "device_name", "gpu_name", "physical_cores"]

_X86_BITS = {
    "avx2": (1, 1, 5),
    "avx512f": (1, 1, 16),
    "avx512_vnni": (1, 2, 11),
    "amx_bf16": (1, 3, 22),
    "amx_int8": (1, 3, 25),
    "avx_vnni": (6, 0, 4),
    "avx512_bf16": (6, 0, 5),
}
"""Feature → number of the CPUID leaf in glibc's sys/platform/x86.h, register (EAX, EBX, ECX, EDX) and bit."""
_ARM_BITS = {"asimd": (16, 1), "asimddp": (16, 20), "sve": (16, 22), "i8mm": (26, 13), "bf16": (26, 14)}
"""Feature → entry of the auxiliary vector (AT_HWCAP, AT_HWCAP2) and bit."""


@cache
def cpu_features() -> tuple[str, ...]:
    """Return the CPU's features that matter to arithmetic, named as in Linux's /proc/cpuinfo.

    The C library comes first: it runs CPUID in this process, and so sees what an emulator or container really provides
    and the system allows. A feature that cannot be read counts as missing.
    """
    known = (*_X86_BITS, *_ARM_BITS)
    found = _features_of_c_library()
    if found is None:
        try:
            text = Path("/proc/cpuinfo").read_text()
        except OSError:
            text = ""
        cores = [set(line.split()) for line in re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)]
        found = set.intersection(*cores) if cores else set()
    return tuple(name for name in known if name in found)


def _features_of_c_library() -> set[str] | None:
    """Return the features according to the C library; None if it does not report them (not glibc 2.33 or newer)."""

    class Leaf(ctypes.Structure):
        _fields_ = (("there", ctypes.c_uint * 4), ("usable", ctypes.c_uint * 4))

    try:
        library = ctypes.CDLL(None)
        if platform.machine() in ("x86_64", "i686"):
            read = library.__x86_get_cpuid_feature_leaf
            read.restype = ctypes.POINTER(Leaf)
            leaves = {number: read(number).contents.usable for number in {leaf for leaf, _, _ in _X86_BITS.values()}}
            return {name for name, (leaf, at, bit) in _X86_BITS.items() if leaves[leaf][at] >> bit & 1}
        if platform.machine() == "aarch64":
            read = library.getauxval
            read.restype = ctypes.c_ulong
            return {name for name, (entry, bit) in _ARM_BITS.items() if read(ctypes.c_ulong(entry)) >> bit & 1}
    except (AttributeError, OSError, TypeError, ValueError):  # ValueError: a null pointer
        pass
    return None


@cache
def cpu_name() -> str:
    """Return the name of the CPU; an unnamed one gets a name with this machine's id."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    if names:
        return str(names[0]).strip()
    # ARM CPUs have numbers instead of a name, and possibly several kinds of cores.
    cores = re.findall(r"^CPU implementer\s*:\s*(\w+)$.*?^CPU part\s*:\s*(\w+)$", text, re.MULTILINE | re.DOTALL)
    if cores:
        return "CPU " + ", ".join(dict.fromkeys(f"implementer {maker} part {part}" for maker, part in cores))
    return f"unnamed {platform.machine()} CPU of machine {_machine()}"


@cache
def gpu_name(index: int) -> str:
    """Return the name of the NVIDIA GPU with the number `index` in this process.

    It comes from CUDA, or from nvidia-smi if that certainly means the same GPU: by default CUDA lists the fastest
    first, and nvidia-smi sorts by bus. A GPU that neither names gets a name with this machine's id.
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
        listed = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not respond
        return []
    return [line.strip() for line in listed.splitlines() if line.strip()]


def _machine() -> str:
    """Return a hash that identifies this machine without revealing its id."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    return hashlib.sha256(f"ovavel {known or uuid.getnode()}".encode()).hexdigest()[:12]


def device_name(device: str) -> str:
    """Return the name of a backend's device: "cpu", "cuda" or "cuda:N"; the address of a server is its name."""
    if "://" in device:
        return device
    if device.startswith("cuda"):
        return gpu_name(int(device.partition(":")[2] or 0))
    return cpu_name()


def physical_cores() -> int:
    """Count the physical cores this process may use; two threads of one core share its arithmetic units."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text().strip())
        except OSError:  # a kernel or sandbox that does not report it
            siblings.add(str(cpu))
    return min(len(siblings), _container_cores())


def _container_cores() -> int:
    """Cores that the quota of the container amounts to: more threads than that would only wait for each other."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or "max": no quota
        return os.cpu_count() or 1
