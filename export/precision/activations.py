"""Activations of an encoder's linear layers on real inputs, to which quantization is calibrated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Activation", "observe_activations"]

# I inputs of a layer, R rows (tokens) of an activation

_ROWS = 24
"""Rows kept per input: half of them the most extreme ones, which set the scale, and half random ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Observed inputs of one linear layer."""

    peaks: NDArray[np.float32]
    """(I,) largest magnitude of each channel."""
    rows: tuple[NDArray[np.float32], ...]
    """(R, I) for each input of the encoder: some tokens, including those with the largest magnitudes."""

    def divided(self, factors: NDArray[np.float32]) -> Activation:
        """Return a copy with each channel divided by its factor, (I,)."""
        return Activation(peaks=self.peaks / factors, rows=tuple(rows / factors for rows in self.rows))


def observe_activations(module: nn.Module, inputs: Iterable[NDArray[Any]]) -> list[Activation]:
    """Run `module` on each of `inputs`, (1, …) float32; return the inputs of its linear layers, in execution order."""
    import torch

    peaks: dict[nn.Module, Tensor] = {}
    rows: dict[nn.Module, list[NDArray[np.float32]]] = {}
    random = torch.Generator().manual_seed(0)

    def observe(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0].reshape(-1, arguments[0].shape[-1])
        each = x.abs().amax(dim=0)
        peaks[layer] = torch.maximum(peaks[layer], each) if layer in peaks else each
        extreme = x.abs().amax(dim=1).topk(min(_ROWS // 2, len(x))).indices
        others = torch.randperm(len(x), generator=random)[: _ROWS // 2]
        rows.setdefault(layer, []).append(x[np.union1d(extreme.numpy(), others.numpy())].numpy())

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    try:
        with torch.inference_mode():
            for array in inputs:
                module(torch.from_numpy(array))
    finally:
        for hook in hooks:
            hook.remove()
    return [Activation(peaks=peaks[layer].numpy(), rows=tuple(rows[layer])) for layer in peaks]
