"""Small models are traced by PyTorch once in a process, however many bundles are made of them.

Tracing takes most of the time of a small export and depends on nothing but the module.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import onnx_ir
import torch
from torch import nn

from ovavel.export import graphs
from ovavel.runtime.bundle.graphs import Encoders, Graph

__all__ = ["TracedOnce"]


class TracedOnce:
    """Keeps what was traced. Not in files: what is read from one is written again with other bytes."""

    def __init__(self) -> None:
        self._kept: dict[str, onnx_ir.Model] = {}

    def __call__(self, name: Graph, module: nn.Module, *, encoders: Encoders) -> onnx_ir.Model:
        """What `ovavel.export.graphs.traced` gives; a copy of what it gave for the same module before."""
        key = f"{name} {encoders} {_digest(module)}"
        if key not in self._kept:
            # The model may share the module's memory, and tests change modules.
            self._kept[key] = graphs.traced(name, copy.deepcopy(module), encoders=encoders)
        return self._kept[key].clone()


def _digest(module: nn.Module) -> str:
    """Of all that decides what the module computes: its parts, their settings, and their weights."""
    digest = hashlib.sha256()
    for path, part in module.named_modules():
        settings: dict[str, Any] = {k: v for k, v in vars(part).items() if isinstance(v, int | float | str)}
        digest.update(f"{path} {type(part)} {sorted(settings.items())}\n".encode())
    with torch.no_grad():
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            digest.update(f"{path} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
