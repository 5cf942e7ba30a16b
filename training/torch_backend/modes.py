"""Encoders run in other modes than eager: compiled, as a CUDA graph, with weights of half the size.

They are what a bundle is measured against (`ovavel bench run`); nothing else uses them.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn

__all__ = ["Cast", "Compiled", "CudaGraphs", "Mode", "in_mode"]

Mode = Literal["eager", "compile", "graph"]
"""As it is; through `torch.compile`; replayed as CUDA graphs."""

_RUNS_BEFORE_RECORDING = 3
_MOST_SHAPES = 256
"""How many shapes are compiled; both encoders share the code that PyTorch counts them by. Its own limit is 8."""


class Cast(nn.Module):
    """An encoder whose weights and arithmetic are of `dtype`; float32 comes in, what comes out is of `dtype`."""

    def __init__(self, tower: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        # A copy of its own: the weights may be mapped from a file that others read.
        self.tower = copy.deepcopy(tower).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) float32 → (B, D) of `dtype`."""
        return cast("Tensor", self.tower(x.to(self.dtype)))


class Compiled(nn.Module):
    """Compiles an encoder for each shape of its input; where PyTorch would give up and run eager, it fails."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = cast("nn.Module", torch.compile(tower, dynamic=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, D).

        Raises:
            RuntimeError: there were more shapes than are compiled, or it cannot be compiled.
        """
        from torch._dynamo import config  # takes a second
        from torch._dynamo.exc import FailOnRecompileLimitHit

        try:
            with config.patch(
                recompile_limit=_MOST_SHAPES,
                accumulated_recompile_limit=_MOST_SHAPES,
                fail_on_recompile_limit_hit=True,
            ):
                return cast("Tensor", self.tower(x))
        except FailOnRecompileLimitHit as error:  # no RuntimeError, unlike what else goes wrong
            raise RuntimeError(
                f"more than {_MOST_SHAPES} shapes were to be compiled; PyTorch would run the rest eager"
            ) from error


class CudaGraphs(nn.Module):
    """Records an encoder as a CUDA graph for each shape of its input, and replays it."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self._recorded: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, D)."""
        shape = tuple(x.shape)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(x)
        graph, given, answer = self._recorded[shape]
        given.copy_(x)
        graph.replay()
        return answer.clone()

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = x.clone()
        side = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]  # libraries choose and allocate in the first runs, which is not recorded
        side.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(side):
            for _ in range(_RUNS_BEFORE_RECORDING):
                self.tower(given)
        torch.cuda.current_stream(x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self.tower(given)
        return graph, given, answer


def in_mode(tower: nn.Module, mode: Mode) -> nn.Module:
    """Wrap an encoder that is on its device already."""
    if mode == "compile":
        return Compiled(tower)
    return CudaGraphs(tower) if mode == "graph" else tower
