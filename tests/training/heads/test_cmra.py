"""The head `cmra`, against PyTorch's own layers."""

from __future__ import annotations

import torch
from support.made_heads import DIM, embeddings, made, noisy
from torch import Tensor, nn

from ovavel.training.heads.cmra import CMRAHead


def test_its_size() -> None:
    assert sum(weight.numel() for weight in CMRAHead().parameters()) == 54_597_632


def attention(state: dict[str, Tensor], prefix: str) -> nn.MultiheadAttention:
    """PyTorch's, with our weights."""
    theirs = nn.MultiheadAttention(DIM, 4, batch_first=True).eval()
    theirs.load_state_dict(
        {
            f"in_proj_{kind}": torch.cat([state[f"{prefix}.{each}.{kind}"] for each in "qkv"])
            for kind in ("weight", "bias")
        }
        | {f"out_proj.{kind}": state[f"{prefix}.o.{kind}"] for kind in ("weight", "bias")}
    )
    return theirs


def layer(state: dict[str, Tensor], prefix: str) -> nn.TransformerEncoderLayer:
    theirs = nn.TransformerEncoderLayer(DIM, 4, 24, batch_first=True).eval()
    theirs.self_attn.load_state_dict(attention(state, f"{prefix}.attention").state_dict())
    for mine, its in (("ffn.w_1", "linear1"), ("ffn.w_2", "linear2"), ("norm1", "norm1"), ("norm2", "norm2")):
        for kind in ("weight", "bias"):
            theirs.get_parameter(f"{its}.{kind}").data.copy_(state[f"{prefix}.{mine}.{kind}"])
    return theirs


def test_it_follows_its_structure() -> None:
    head = noisy(made("cmra"))
    state = head.state_dict()
    audio, vision, _ = embeddings()
    inputs = {"audio": 20 * audio, "vision": vision}

    def linear(x: Tensor, name: str) -> Tensor:
        return nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def encoded(sense: str) -> Tensor:
        x = linear(inputs[sense], f"{sense}.enter")
        for number in range(2):
            x = layer(state, f"{sense}.encoder.{number}")(x)
        return x

    with torch.no_grad():
        for got, sense, other in zip(head(audio, vision), inputs, reversed(inputs), strict=True):
            query = linear(inputs[sense], f"{sense}.query")
            memory = torch.cat([encoded(other), query], dim=1)
            answer, _ = attention(state, f"{sense}.decoder.attention")(query, memory, memory)
            decoder = layer(state, f"{sense}.decoder")
            x = decoder.norm1(query + answer)
            expected = decoder.norm2(x + decoder.linear2(decoder.linear1(x).relu()))
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
