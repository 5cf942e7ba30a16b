"""Peak rates of a device in PyTorch: the ceiling that benchmark figures are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from ovavel.eval.bench.meters.rates import best_rate
from ovavel.training.torch_backend.backend import resolve_device

__all__ = ["measure_rates"]

_SIZE = {"cpu": 1536, "cuda": 8192}
_READ_BYTES = {"cpu": 2**28, "cuda": 2**33}
"""Much larger than the caches, and large enough to make launch overhead negligible."""
_LARGEST_SHARE = 4
"""At most this fraction (one over it) of a GPU's free memory is read."""
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure_rates(device: str, threads: int) -> tuple[float, dict[str, float]]:
    """Measure `device` ("cpu" or "cuda:N"); a CPU with `threads` threads.

    Returns:
        Bytes read per second, and operations per second by precision, from products of square matrices. fp32 is
        without TF32, like the encoders; int8 and fp8 only where the GPU supports them.

    Raises:
        DeviceError: the device is unavailable.
    """
    chosen = resolve_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return _read(chosen), _products(chosen)
    finally:
        torch.set_num_threads(before)


def _read(device: torch.device) -> float:
    size = _READ_BYTES[device.type]
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // _LARGEST_SHARE)
    data = torch.ones(size // 4, device=device)

    def work() -> None:
        data.sum()
        _wait(device)

    return best_rate(work, float(data.numel() * 4))


def _products(device: torch.device) -> dict[str, float]:
    size = _SIZE[device.type]
    found = {}
    for precision, dtype in _TYPES.items():
        if device.type == "cpu" and precision == "fp16":
            continue  # encoders do not use it there
        left = torch.randn(size, size, device=device).to(dtype)
        found[precision] = _product(left, device)
    if device.type == "cuda":
        for precision, product in (("int8", _int8), ("fp8", _fp8)):
            try:
                found[precision] = product(size, device)
            except (RuntimeError, NotImplementedError):  # unsupported by this GPU or build
                continue
    return found


def _product(left: Tensor, device: torch.device) -> float:
    def work() -> None:
        left @ left
        _wait(device)

    return best_rate(work, 2.0 * left.shape[0] ** 3)


def _int8(size: int, device: torch.device) -> float:
    left = torch.randint(-64, 64, (size, size), device=device, dtype=torch.int8)
    right = left.t().contiguous().t()

    def work() -> None:
        torch._int_mm(left, right)
        _wait(device)

    return best_rate(work, 2.0 * size**3)


def _fp8(size: int, device: torch.device) -> float:
    left = torch.randn(size, size, device=device).to(torch.float8_e4m3fn)
    right, one = left.t().contiguous().t(), torch.ones((), device=device)

    def work() -> None:
        torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
        _wait(device)

    return best_rate(work, 2.0 * size**3)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
