"""Training in several processes started by `torchrun`."""

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
