"""Modes of running an encoder other than eager: compiled, as a CUDA graph, or with half-precision weights.

Bundles are benchmarked against them (`ovavel bench run`); nothing else uses them.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn

__all__ = ["Cast", "Mode", "in_mode"]

Mode = Literal["eager", "compile", "graph"]
"""Unchanged; through `torch.compile`; replayed as CUDA graphs."""

_RUNS_BEFORE_RECORDING = 3
_MAX_SHAPES = 256
"""Maximum number of compiled shapes, counted by PyTorch over both encoders together. Its default is 8."""


class Cast(nn.Module):
    """Encoder with weights and arithmetic in `dtype`; takes float32 and returns `dtype`."""

    def __init__(self, tower: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        # A copy: the weights may be mapped from a file that others read.
        self.tower = copy.deepcopy(tower).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, …) float32 → (B, D) of `dtype`."""
        return cast("Tensor", self.tower(x.to(self.dtype)))


class Compiled(nn.Module):
    """Encoder compiled for each input shape; fails where PyTorch would fall back to eager."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = cast("nn.Module", torch.compile(tower, dynamic=False))

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, …) → (B, D).

        Raises:
            RuntimeError: too many input shapes, or compilation failed.
        """
        from torch._dynamo import config  # slow to import
        from torch._dynamo.exc import FailOnRecompileLimitHit

        try:
            with config.patch(
                recompile_limit=_MAX_SHAPES,
                accumulated_recompile_limit=_MAX_SHAPES,
                fail_on_recompile_limit_hit=True,
            ):
                return cast("Tensor", self.tower(x))
        except FailOnRecompileLimitHit as error:  # not a RuntimeError, unlike other failures
            raise RuntimeError(
                f"there are more than {_MAX_SHAPES} input shapes; PyTorch would run further ones eager"
            ) from error


class CudaGraphs(nn.Module):
    """Encoder recorded as a CUDA graph for each input shape, and replayed."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self._recorded: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, …) → (B, D)."""
        shape = tuple(x.shape)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(x)
        graph, placeholder, answer = self._recorded[shape]
        placeholder.copy_(x)
        graph.replay()
        return answer.clone()

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        placeholder = x.clone()
        side = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]  # the first runs select kernels and allocate, outside the recording
        side.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(side):
            for _ in range(_RUNS_BEFORE_RECORDING):
                self.tower(placeholder)
        torch.cuda.current_stream(x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self.tower(placeholder)
        return graph, placeholder, answer


def in_mode(tower: nn.Module, mode: Mode) -> nn.Module:
    """Wrap an encoder, which must be on its device already."""
    if mode == "compile":
        return Compiled(tower)
    return CudaGraphs(tower) if mode == "graph" else tower
