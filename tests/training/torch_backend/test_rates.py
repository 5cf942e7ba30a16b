"""Amount of memory read to measure the bandwidth of a device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ovavel.training.torch_backend import rates


@pytest.mark.parametrize(("free", "read"), [(80 * 2**30, 8 * 2**30), (8 * 2**30, 2 * 2**30)])
def test_a_gpu_reads_enough_and_fits_in_free_memory(monkeypatch: pytest.MonkeyPatch, free: int, read: int) -> None:
    def ones(count: int, *, device: torch.device) -> Any:
        return SimpleNamespace(numel=lambda: count, sum=lambda: None)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * 2**30))
    monkeypatch.setattr(rates, "best_rate", lambda work, amount: amount)
    assert rates._read(torch.device("cuda", 0)) == read
