"""Towers that compute fewer tokens with the weights of a full one. None of them is trained for it.

Shapes: one input at a time, N tokens of it with the class token first, W width, H heads, k budget of a gate, r tokens
merged in a block, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ovavel.training.models.imagebind.model import Attention, Block, PatchTower
from ovavel.training.models.unit import unit_norm

__all__ = [
    "POOLINGS",
    "ChangedTokens",
    "FewerTokens",
    "Pooling",
    "State",
    "gated_blocks",
    "merged_blocks",
    "pooling",
    "start",
]

State: TypeAlias = list[Tensor]
"""Buffers of the gates, three for each block and one for the last: what the results were computed from, and these."""
Pooling: TypeAlias = Literal["neighbours, first", "neighbours, mean", "repeats, first"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""How halves of the tokens of sound are made: what stands for each other, and what is kept of it. The mean of
repeats is `PooledTower`."""

_MEL_ROWS, _MEL_COLUMNS, _HALF = 12, 19, 10
"""Patches of a log-mel, (bins, time). The second is in it twice: a patch and the tenth after it hold the same."""
_BUFFERS = 6


class ChangedTokens(nn.Module):
    """Eventful Transformer (Dutson et al., ICCV 2023): tokens that changed least keep their results in each block.

    It keeps what it needs of the pictures before, so it is for pictures of one camera, in their order.
    """

    def __init__(self, tower: PatchTower, budget: int) -> None:
        """Compute `budget` tokens at each gate, the class token and those that changed most."""
        super().__init__()
        self.tower, self.budget = tower, budget
        self._state: State | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, channels, height, width) → (1, D) of unit norm; the first one in full."""
        x = _tokens(self.tower, image)
        *blocks, last = self.tower.blocks
        budget = self.budget
        if self._state is None:
            self._state, budget = start(x, len(blocks), last=True), x.shape[1]
        x, self._state = gated_blocks(blocks, x, self._state, budget, last)  # type: ignore[arg-type]
        return _embedding(self.tower, x)


class FewerTokens(nn.Module):
    """Token merging (ToMe, Bolya et al., ICLR 2023) and pooling of a tower's tokens, (1, …) → (1, D)."""

    pool: Tensor
    sizes: Tensor | None

    def __init__(self, tower: PatchTower, merged: int = 0, pool: Pooling | None = None) -> None:
        """Merge so many tokens in each block but the last; with `pool`, compute half of the tokens of a log-mel."""
        super().__init__()
        self.tower, self.merged = tower, merged
        weights, sizes = (None, None) if pool is None else pooling(pool)
        self.register_buffer("pool", weights)
        self.register_buffer("sizes", sizes)

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, channels, height, width) → (1, D) of unit norm."""
        x, sizes = _tokens(self.tower, image), self.sizes
        if sizes is not None:
            x = self.pool @ x
        *blocks, last = self.tower.blocks
        x, sizes = merged_blocks(blocks, x, sizes, self.merged)  # type: ignore[arg-type]
        assert isinstance(last, Block)
        x = x[:, :1] + last.attention.out(
            _attend(last.attention, last.attention.qkv(last.norm_1(x)), sizes, first_only=True)
        )
        return _embedding(self.tower, x + _perceptron(last, last.norm_2(x)))


def start(x: Tensor, blocks: int, *, last: bool = False) -> State:
    """Return the state before the first input (1, N, W), of which every token has to be computed."""
    widths = (1, 3, 1, 1, 1, 1) * blocks + ((1, 3) if last else ())
    return [x.new_zeros(1, x.shape[1], x.shape[2] * width) for width in widths]


def gated_blocks(
    blocks: Iterable[Block], x: Tensor, state: State, budget: int, last: Block | None = None
) -> tuple[Tensor, State]:
    """Apply blocks to (1, N, W), with gates before the three matrices of each; return the result and the next state.

    Products of queries, keys and values are those of all tokens. The class token is always computed. `last` computes
    its first token only, (1, 1, W).
    """
    after: State = []
    for number, block in enumerate(blocks):
        s1, r1, s2, r2, s3, r3 = state[_BUFFERS * number : _BUFFERS * (number + 1)]
        s1, r1 = _gated(block.attention.qkv, block.norm_1(x), s1, r1, budget)
        s2, r2 = _gated(block.attention.out, _attend(block.attention, r1), s2, r2, budget)
        x = x + r2
        s3, r3 = _gated(partial(_perceptron, block), block.norm_2(x), s3, r3, budget)
        x = x + r3
        after += [s1, r1, s2, r2, s3, r3]
    if last is not None:
        s1, r1 = state[-2:]
        s1, r1 = _gated(last.attention.qkv, last.norm_1(x), s1, r1, budget)
        after += [s1, r1]
        x = x[:, :1] + last.attention.out(_attend(last.attention, r1, first_only=True))
        x = x + _perceptron(last, last.norm_2(x))
    return x, after


def _gated(
    function: Callable[[Tensor], Tensor], x: Tensor, seen: Tensor, kept: Tensor, budget: int
) -> tuple[Tensor, Tensor]:
    """Apply `function` to the class token and the others of (1, N, W) that are furthest from what was `seen` of them.

    Returns: what was seen, and the results of all tokens, with these brought up to date.
    """
    change = (x - seen).square().sum(dim=2)[0, 1:]  # (N - 1,)
    rows = torch.cat((change.new_zeros(1, dtype=torch.int64), change.topk(budget - 1).indices + 1))
    chosen = x[:, rows]
    return seen.index_copy(1, rows, chosen), kept.index_copy(1, rows, function(chosen))


def merged_blocks(
    blocks: Iterable[Block], x: Tensor, sizes: Tensor | None, merged: int
) -> tuple[Tensor, Tensor | None]:
    """Apply blocks to (1, N, W), each of which merges so many tokens between attention and perceptron.

    `sizes`, (1, N, 1), is how many tokens each stands for; None: one. Returned with the result, of fewer tokens.
    """
    for block in blocks:
        attention = block.attention
        qkv = attention.qkv(block.norm_1(x))
        x = x + attention.out(_attend(attention, qkv, sizes))
        if merged:
            keys = qkv.chunk(3, dim=2)[1].unflatten(2, (attention.heads, -1)).mean(dim=2)  # (1, N, W / H)
            x, sizes = _merge(x, torch.ones_like(x[:, :, :1]) if sizes is None else sizes, keys, merged)
        x = x + _perceptron(block, block.norm_2(x))
    return x, sizes


def _merge(x: Tensor, sizes: Tensor, keys: Tensor, merged: int) -> tuple[Tensor, Tensor]:
    """Merge tokens of even place into those of odd place whose keys are most similar; the class token stays first."""
    keys = unit_norm(keys[0])
    similar, onto = (keys[2::2] @ keys[1::2].T).max(dim=1)  # without the class token
    order = similar.argsort(descending=True)
    gone, stays = 1 + order[:merged], torch.cat((order.new_zeros(1), 1 + order[merged:].sort().values))
    sums = (torch.arange(keys[1::2].shape[0])[:, None] == onto[order[:merged]][None]).float()  # (N // 2, r)
    odd, even, odd_sizes, even_sizes = x[:, 1::2], x[:, 0::2], sizes[:, 1::2], sizes[:, 0::2]
    total = odd_sizes + sums @ even_sizes[:, gone]
    odd = (odd * odd_sizes + sums @ (even * even_sizes)[:, gone]) / total
    return torch.cat((even[:, stays], odd), dim=1), torch.cat((even_sizes[:, stays], total), dim=1)


def pooling(kind: Pooling) -> tuple[Tensor, Tensor]:
    """Return the matrix (M, N) that pools the tokens of a log-mel to M, and how many each stands for, (1, M, 1)."""
    groups, kept = kind.split(", ")
    column = torch.arange(_MEL_COLUMNS)
    group = column // 2 if groups == "neighbours" else column % _HALF
    token = 1 + torch.cat([row * _HALF + group for row in range(_MEL_ROWS)])
    token = torch.cat((torch.zeros(1, dtype=torch.int64), token))
    members = (torch.arange(1 + _MEL_ROWS * _HALF)[:, None] == token[None]).float()
    sizes = members.sum(dim=1, keepdim=True)
    weights = members / sizes if kept == "mean" else members * (members.cumsum(dim=1) == 1)
    return weights, sizes[None]


def _tokens(tower: PatchTower, image: Tensor) -> Tensor:
    """Return what the first block gets, (1, N, W)."""
    x = tower.stem_norm(tower.stem(image).flatten(2).transpose(1, 2))
    return tower.input_norm(torch.cat((tower.class_token, x), dim=1) + tower.positions)  # type: ignore[no-any-return]


def _embedding(tower: PatchTower, x: Tensor) -> Tensor:
    return unit_norm(tower.projection(tower.output_norm(x[:, 0])))


def _perceptron(block: Block, x: Tensor) -> Tensor:
    return block.fc2(block.activation(block.fc1(x)))  # type: ignore[no-any-return]


def _attend(attention: Attention, qkv: Tensor, sizes: Tensor | None = None, *, first_only: bool = False) -> Tensor:
    """Attend, (1, N, 3 W) → (1, N, W); a token of size s weighs as s tokens."""
    if sizes is not None and attention.extra_key is not None:
        sizes = torch.cat((sizes, torch.ones_like(sizes[:, :1])), dim=1)
    bias = None if sizes is None else sizes.log().transpose(1, 2)[:, None]
    return attention.mixed(qkv, first_only=first_only, key_bias=bias)
