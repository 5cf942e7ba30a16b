"""Training by several processes that `torchrun` started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch.distributed as dist

from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.training.torch_backend.backend import resolve_device

__all__ = ["processes"]


@contextlib.contextmanager
def processes(device: str) -> Iterator[tuple[int, str]]:
    """Join the process group that `torchrun` made, if it did; yields this process's rank and its device.

    They talk by gloo on CPUs and by NCCL on GPUs, of which each process takes the one of its local rank.

    Raises:
        UsageError: one GPU is named for several processes.
        DeviceError: the group cannot be joined, or there are too few GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, device
        return
    kind = resolve_device(device).type
    if ":" in device:
        raise UsageError(f"several processes cannot share {device}; give --device cuda, and each takes one of its own")
    if kind == "cuda":
        device = str(resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}"))
    try:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"the processes cannot find each other ({error}); start them with torchrun") from error
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()
