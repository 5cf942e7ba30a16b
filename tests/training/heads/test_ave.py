"""The head `ave`."""

from __future__ import annotations

import torch
from support.made_heads import embeddings, made

from ovavel.training.heads.ave import AVEHead


def test_its_size() -> None:
    assert sum(weight.numel() for weight in AVEHead().parameters()) == 4_198_400


def test_it_follows_its_formula() -> None:
    head, state = made("ave"), made("ave").state_dict()
    audio, vision, _ = embeddings()
    a = 20 * audio

    def small(x: torch.Tensor, sense: str) -> torch.Tensor:
        inner = torch.tanh(x @ state[f"{sense}.0.weight"].T + state[f"{sense}.0.bias"])
        return inner @ state[f"{sense}.2.weight"].T + state[f"{sense}.2.bias"]

    common = 0.5 * (small(vision, "vision") + small(a, "audio"))
    with torch.no_grad():
        got_audio, got_vision = head(audio, vision)
    torch.testing.assert_close(got_audio, torch.tanh(a + common), atol=1e-6, rtol=0)
    torch.testing.assert_close(got_vision, torch.tanh(vision + common), atol=1e-6, rtol=0)
