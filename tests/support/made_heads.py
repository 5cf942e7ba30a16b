"""Small heads of every kind with weights that show all of their parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovavel.training.heads.base import Head, make_head
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.unit import unit_norm

__all__ = ["DIM", "KINDS", "LEARNED", "embeddings", "made", "noisy"]

DIM = 16
KINDS = ("temporal", "ave", "psp", "cmra", "mm-pyramid", "complex")
LEARNED = ("complex",)


def made(kind: str, *, dim: int = DIM, seed: int = 0, **settings: object) -> Head:
    """A head of embeddings of size `dim`, in evaluation mode; `complex` stands on a temporal one."""
    torch.manual_seed(seed)
    if kind == "complex":
        settings = {"trunk": TemporalHead(1, dim, 8, 12), **settings}
    if kind == "cmra" or kind == "mm-pyramid":
        settings = {"ffn": 24, **settings}
    head = make_head(kind, dim=dim, **settings)
    if kind in LEARNED:
        _observe(head, dim)
    return head.eval()


def _observe(head: Head, dim: int) -> None:
    """Let batch norms see a step, as training does: without, few values decide, and rounding shows in the scores."""
    norms = [part for part in head.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        audio, vision, text = embeddings(clips=16, dim=dim)
        HeadGraph(head.train())(audio, vision, text, text)
    for norm in norms:
        norm.momentum = 0.1


def noisy(head: Head) -> Head:
    """The same head with biases, norms and running means that are not those of the beginning."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=random))
    return head


def embeddings(
    clips: int = 2, segments: int = 10, names: int = 5, *, dim: int = DIM, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Audio and vision (B, T, D) and text (C, D), all of unit norm."""
    random = torch.Generator().manual_seed(seed)
    shapes = ((clips, segments, dim), (clips, segments, dim), (names, dim))
    audio, vision, text = (unit_norm(torch.randn(shape, generator=random)) for shape in shapes)
    return audio, vision, text
