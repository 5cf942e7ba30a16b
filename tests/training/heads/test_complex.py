"""The head `complex`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.made_heads import embeddings, made, noisy

from ovavel.training.heads.complex import ComplexConvolution, ComplexHead
from ovavel.training.heads.temporal import HeadGraph, TemporalHead


def test_its_size() -> None:
    head = ComplexHead(TemporalHead())
    assert sum(weight.numel() for weight in head.parameters() if weight.requires_grad) == 31_874
    assert sum(
        weight.numel() for weight in ComplexHead(TemporalHead(), train_trunk=True).parameters() if weight.requires_grad
    ) == 31_874 + sum(weight.numel() for weight in TemporalHead().parameters())


def convolved(layer: ComplexConvolution, z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """(K, T) → (K', T), by numpy's complex numbers."""
    weight = layer.real.weight.detach().double().numpy() + 1j * layer.imaginary.weight.detach().double().numpy()
    assert layer.real.bias is not None
    assert layer.imaginary.bias is not None
    bias = layer.real.bias.detach().double().numpy() + 1j * layer.imaginary.bias.detach().double().numpy()
    reach = weight.shape[2] // 2
    padded = np.pad(z, ((0, 0), (reach, reach)))
    taps = (weight[..., k] @ padded[:, k : k + z.shape[1]] for k in range(weight.shape[2]))
    found: NDArray[np.complex128] = sum(taps) + bias[:, None]  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("segments", [1, 4, 10])
def test_it_follows_its_formula(segments: int) -> None:
    head = noisy(made("complex"))
    assert isinstance(head, ComplexHead)
    x = embeddings(clips=1, segments=segments)
    with torch.no_grad():
        got, trunk = HeadGraph(head)(*x, x[2]), HeadGraph(head.trunk)(*x, x[2])  # type: ignore[arg-type]
    assert torch.equal(got.audio_similarity, trunk.audio_similarity)
    assert torch.equal(got.vision_similarity, trunk.vision_similarity)
    size = []
    for audio, vision in zip(trunk.audio_similarity[0].T, trunk.vision_similarity[0].T, strict=True):
        z = (vision.numpy().astype(np.float64) + 1j * audio.numpy())[None]
        for layer, norm in zip(head.convolutions, head.norms, strict=True):
            assert isinstance(layer, ComplexConvolution)
            z = convolved(layer, z)
            w, b, mean, var = (
                t.detach().double().numpy()[:, None]
                for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            )
            parts = np.concatenate([z.real, z.imag])
            parts = np.maximum((parts - mean) / np.sqrt(var + 1e-5) * w + b, 0)
            z = parts[:32] + 1j * parts[32:]
        size.append(np.abs(convolved(head.last, z))[0])
    s = np.array(size).T
    low, high = s.min(-1, keepdims=True), s.max(-1, keepdims=True)
    np.testing.assert_allclose(got.score[0].numpy(), (s - low) / (high - low + 1e-8), atol=1e-4)


def test_a_trunk_that_is_not_trained_stays_unchanged() -> None:
    head = made("complex").train()
    assert isinstance(head, ComplexHead)
    assert not any(part.training for part in head.trunk.modules())
    assert head.norms.training
    audio, vision, text = embeddings()
    score = HeadGraph(head)(audio, vision, text, text).score
    score.sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in head.trunk.parameters())
    both = made("complex", train_trunk=True).train()
    assert isinstance(both, ComplexHead)
    assert all(part.training for part in both.trunk.modules())
    HeadGraph(both)(audio, vision, text, text).score.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in both.trunk.parameters())


def test_names_that_score_alike_are_all_nothing() -> None:
    head = noisy(made("complex"))
    audio, vision, text = embeddings()
    with torch.no_grad():
        score = HeadGraph(head)(audio, vision, *[torch.zeros_like(text)] * 2).score
    assert torch.equal(score, torch.zeros_like(score))
