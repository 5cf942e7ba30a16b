"""Training in several processes started by `torchrun`, and the same in each run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist

from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.training.torch_backend.backend import resolve_device

__all__ = ["deterministic", "processes", "wait_for_all"]


@contextlib.contextmanager
def processes(device: str) -> Iterator[tuple[int, str]]:
    """Join the process group of `torchrun`, if there is one; yield this process's rank and device.

    The processes use gloo on CPUs and NCCL on GPUs; each takes the GPU of its local rank.

    Raises:
        UsageError: a single GPU was given for several processes.
        DeviceError: the group cannot be joined, or there are too few GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, device
        return
    kind = resolve_device(device).type
    if ":" in device:
        raise UsageError(f"several processes cannot share {device}; use --device cuda, so that each takes its own GPU")
    if kind == "cuda":
        device = str(resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}"))
    try:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"the processes cannot connect to each other ({error}); start them with torchrun") from error
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Make PyTorch use deterministic algorithms, and fail where there are none."""
    before = torch.get_deterministic_debug_mode()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.set_deterministic_debug_mode("error")  # unlike `use_deterministic_algorithms`, it does not load a compiler
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def wait_for_all(world: int) -> None:
    """Wait until all `world` processes are here."""
    if world > 1:
        dist.barrier()
