"""The head `mm-pyramid`, against PyTorch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.made_heads import DIM, embeddings, made, noisy
from torch import Tensor, nn

from ovavel.runtime.errors import UsageError
from ovavel.training.heads.layers import MultiHeadAttention
from ovavel.training.heads.mm_pyramid import MMPyramidHead


@pytest.mark.parametrize(("levels", "size"), [(1, 58_438_488), (2, 100_214_514), (3, 141_990_540), (4, 183_766_566)])
def test_its_size(levels: int, size: int) -> None:
    with torch.device("meta"):
        assert sum(weight.numel() for weight in MMPyramidHead(levels=levels).parameters()) == size


@pytest.mark.parametrize("levels", [0, 5, "2"])
def test_levels_out_of_range_are_refused(levels: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 4 levels"):
        MMPyramidHead(16, levels=levels)


def transformer(state: dict[str, Tensor], prefix: str, x: Tensor, context: Tensor, far: Tensor | None) -> Tensor:
    """By PyTorch's attention, with our weights; the query alone is normalized."""
    at = {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
    attention = nn.MultiheadAttention(DIM, 8, batch_first=True).eval()
    attention.load_state_dict(
        {f"in_proj_{k}": torch.cat([at[f"attention.{each}.{k}"] for each in "qkv"]) for k in ("weight", "bias")}
        | {f"out_proj.{k}": at[f"attention.o.{k}"] for k in ("weight", "bias")}
    )
    query = F.layer_norm(x, [DIM], at["norm1.weight"], at["norm1.bias"])
    x = x + attention(query, context, context, attn_mask=far)[0]
    inner = F.layer_norm(x, [DIM], at["norm2.weight"], at["norm2.bias"])
    return x + F.linear(
        F.relu(F.linear(inner, at["ffn.w_1.weight"], at["ffn.w_1.bias"])), at["ffn.w_2.weight"], at["ffn.w_2.bias"]
    )


@pytest.mark.parametrize("levels", [1, 3])
def test_it_follows_its_structure(levels: int) -> None:
    head = noisy(made("mm-pyramid", levels=levels))
    state = head.state_dict()
    audio, vision, _ = embeddings()

    def gate(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]).sigmoid()

    def level(number: int, own: Tensor, other: Tensor, sense: str) -> Tensor:
        prefix, d = f"levels.{number}", 2**number
        far = torch.tensor([[abs(i - j) > d for j in range(10)] for i in range(10)])
        alone = transformer(state, f"{prefix}.{sense}", own, own, far)
        cross = transformer(state, f"{prefix}.cross", own, other, far)
        both = torch.cat([alone, cross], dim=-1)
        x = gate(both, f"{prefix}.{sense}_gates.own") * alone + gate(both, f"{prefix}.{sense}_gates.cross") * cross
        at = f"{prefix}.{sense}_convolution"
        wide, bias = state[f"{at}.wide.weight"], state[f"{at}.wide.bias"]
        padded = F.pad(x, (0, 0, d, d))
        y = sum(padded[:, k * d : k * d + 10] @ wide[..., k].T for k in range(3)) + bias
        y = F.linear(F.relu(y), state[f"{at}.point.weight"][..., 0], state[f"{at}.point.bias"])
        return F.relu(x + y)

    def fused(found: list[Tensor], sense: str) -> Tensor:
        stack = torch.stack(found, dim=2).flatten(0, 1)
        stack = transformer(state, f"{sense}.layer", stack, stack, None)
        return (gate(stack, f"{sense}.weight") * stack).sum(dim=1).unflatten(0, audio.shape[:2])

    with torch.no_grad():
        a, v = 20 * audio, vision
        heard, seen = [], []
        for number in range(levels):
            a, v = level(number, a, v, "audio"), level(number, v, a, "vision")
            heard.append(a)
            seen.append(v)
        got_audio, got_vision = head(audio, vision)
        torch.testing.assert_close(got_audio, fused(heard, "audio"), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(got_vision, fused(seen, "vision"), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("distance", [0, 1, 4])
def test_attention_is_masked_to_a_distance(distance: int) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(DIM, 8, 0.0).eval()
    x, _, _ = embeddings()
    place = torch.arange(10)
    far = (place[:, None] - place).abs() > distance
    changed = x.clone()
    changed[:, 5] = -x[:, 5]
    with torch.no_grad():
        moved = (attention(x, x, far) != attention(x, changed, far)).any(dim=-1).any(dim=0)
    assert moved.tolist() == ((place - 5).abs() <= distance).tolist()
