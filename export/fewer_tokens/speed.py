"""How fast blocks are that compute fewer tokens: `python -m ovavel.export.fewer_tokens.speed --help`.

Some blocks of an encoder's size, with random weights, run in ONNX Runtime on one core, in turns with the same blocks on
all tokens. Processor time is compared, which other work on the machine disturbs little. The share of operations is that
of the whole encoder. Where tokens are merged, the blocks begin with so many that they have as many as its blocks on
average. Pooled sound is measured as it is exported: the whole encoder, on seconds that the real preparation has made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ovavel.eval.bench.machine import describe_machine
from ovavel.export.fewer_tokens.towers import ChangedTokens, FewerTokens, State, gated_blocks, merged_blocks, start
from ovavel.export.graphs import save_variant, traced, traced_module
from ovavel.export.inputs import calibration_inputs
from ovavel.export.precision.activations import Activation, observe_activations
from ovavel.export.precision.linears import array, find_linears
from ovavel.export.precision.quantize import QuantizeRecipe, quantize
from ovavel.runtime.backends.onnxruntime.sessions import open_session
from ovavel.runtime.bundle.graphs import SENSES
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.economy.work import TOKENS, flops
from ovavel.runtime.types import Sense
from ovavel.training.models.imagebind.model import (
    FRAME,
    LOG_MEL,
    Block,
    ImageBind,
    ImageBindConfig,
    PatchTower,
    read_config,
)
from ovavel.training.models.imagebind.pooled import PooledTower

__all__ = ["Way", "main", "open_blocks", "traced_way", "ways"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_POOLED_PRECISIONS: tuple[Precision, ...] = ("fp32-pooled", "int8-pooled")


class _Merged(nn.Module):
    """All blocks on all tokens, or with tokens merged; `sizes` says what each token stands for."""

    def __init__(self, blocks: Sequence[Block], merged: int, sizes: Tensor | None) -> None:
        super().__init__()
        self.blocks, self.merged, self.sizes = nn.ModuleList(blocks), merged, sizes

    def forward(self, x: Tensor) -> Tensor:
        return merged_blocks(self.blocks, x, self.sizes, self.merged)[0]  # type: ignore[arg-type]


class _Gated(nn.Module):
    """All blocks, with gates."""

    def __init__(self, blocks: Sequence[Block], budget: int) -> None:
        super().__init__()
        self.blocks, self.budget = nn.ModuleList(blocks), budget

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x, after = gated_blocks(self.blocks, x, list(state), self.budget)  # type: ignore[arg-type]
        return (x, *after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Blocks that compute fewer tokens, and the whole encoder that does."""

    blocks: nn.Module
    encoder: nn.Module
    """On the meta device: its operations are counted, not done."""
    x: Tensor
    """(1, N, W) for the blocks."""
    state: State
    """More inputs of the blocks, each of which has an output."""


def ways(
    config: ImageBindConfig, sense: Sense, budgets: Sequence[int], merged: Sequence[int], timed: int
) -> dict[str, Way]:
    """Return the ways of one encoder, all tokens first, of which so many blocks are `timed`."""
    size = config.vision if sense == "vision" else config.audio
    torch.manual_seed(0)
    timed = min(timed, size.blocks)
    blocks = [Block(size, extra_token=sense == "audio").eval() for _ in range(timed)]
    x = torch.randn(1, TOKENS[sense], size.width)
    with torch.device("meta"):
        tower: Any = ImageBind(config, (sense,)).towers[sense]
        found = {"all tokens": Way(blocks=_Merged(blocks, 0, None), encoder=tower, x=x, state=[])}
        changed = {budget: ChangedTokens(tower, budget) for budget in budgets if sense == "vision"}
        fewer = {count: FewerTokens(tower, count) for count in merged}
    for budget, encoder in changed.items():
        state = start(x, timed)
        found[f"changed tokens, {budget}"] = Way(blocks=_Gated(blocks, budget), encoder=encoder, x=x, state=state)
    for count, merging in fewer.items():
        few = x[:, : x.shape[1] - count * (size.blocks - timed) // 2]
        stack = _Merged(blocks, count, 1 + torch.rand_like(few[:, :, :1]))
        found[f"merged, {count} a block"] = Way(blocks=stack, encoder=merging, x=few, state=[])
    return found


def traced_way(way: Way) -> onnx_ir.Model:
    """Return the blocks in ONNX: inputs x, s0, s1 and so on, outputs y, t0, t1 and so on."""
    count = range(len(way.state))
    return traced_module(
        way.blocks.requires_grad_(requires_grad=False),
        (way.x, *way.state),
        ["x", *(f"s{number}" for number in count)],
        ["y", *(f"t{number}" for number in count)],
        title="trial",
    )


def open_blocks(model: onnx_ir.Model, folder: Path, precision: str) -> Any:
    """Write traced blocks to `folder` in fp32 or int8, and load them into ONNX Runtime."""
    variant = model.clone()
    if precision == "int8":
        linears = find_linears(variant.graph)
        seen = [Activation(peaks=np.ones(len(array(each.matrix)), np.float32), rows=()) for each in linears]
        quantize(variant, seen, QuantizeRecipe(migrate=False))
    path = folder / "blocks.onnx"
    onnx_ir.save(variant, path, external_data=f"{path.name}.data")
    return open_session(read_graph(path), None, 1)


class _Running:
    """Blocks in ONNX Runtime; their state stays where it is, and takes turns between two places."""

    def __init__(self, session: Any, way: Way) -> None:
        import onnxruntime

        self._session = session
        places = [[onnxruntime.OrtValue.ortvalue_from_numpy(each.numpy().copy()) for each in way.state] for _ in "ab"]
        x = onnxruntime.OrtValue.ortvalue_from_numpy(way.x.numpy())
        self._bound = []
        for before, after in (places, places[::-1]):
            bound = session.io_binding()
            bound.bind_ortvalue_input("x", x)
            bound.bind_output("y", "cpu")
            for number, (held, put) in enumerate(zip(before, after, strict=True)):
                bound.bind_ortvalue_input(f"s{number}", held)
                bound.bind_ortvalue_output(f"t{number}", put)
            self._bound.append(bound)

    def run_s(self) -> float:
        """Run once; return the processor time that it took."""
        self._bound.reverse()
        start_s = time.process_time()
        self._session.run_with_iobinding(self._bound[0])
        return time.process_time() - start_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Time each way in turns with all tokens, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="huge", help="huge, tiny, or a JSON file with the size of an ImageBind")
    parser.add_argument("--senses", nargs="+", choices=SENSES, default=SENSES)
    parser.add_argument("--budgets", nargs="*", type=int, default=[64, 128, 257], help="of changed tokens")
    parser.add_argument("--merged", nargs="*", type=int, default=[4, 7], help="tokens merged in a block")
    parser.add_argument("--blocks", type=int, default=1, help="that are timed, of each encoder")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    machine = describe_machine()
    print(f"{machine.cpu}, one core, {machine.versions}, {machine.date}")
    config = read_config(options.config)
    for sense in options.senses:
        found = ways(config, sense, options.budgets, options.merged, options.blocks)
        _measure(sense, found, (config.vision if sense == "vision" else config.audio).blocks, options)
        if sense == "audio":
            _measure_pooled(sense, config, options.turns)
    return 0


def _measure(sense: Sense, found: Mapping[str, Way], blocks: int, options: argparse.Namespace) -> None:
    whole, *_ = found.values()
    operations, all_tokens = _operations(sense, whole), traced_way(whole)
    for name, way in found.items():
        share, model = _operations(sense, way) / operations, traced_way(way)
        state_mb = sum(each.nbytes for each in way.state) / options.blocks * blocks / 1e6
        print(f"{sense} {name}: {share:.1%} of the operations, state of {state_mb:.0f} MB", end="")
        for precision in _PRECISIONS:
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
                full = _Running(open_blocks(all_tokens, Path(one), precision), whole)
                fewer = _Running(open_blocks(model, Path(other), precision), way)
                times = np.array([(full.run_s(), fewer.run_s()) for _ in range(1 + options.turns)])[1:]
                ratio, took_ms = np.median(times[:, 0] / times[:, 1]), 1e3 * np.median(times, axis=0)
            print(f"; {precision} {ratio:.2f} times as fast ({took_ms[1]:.0f} of {took_ms[0]:.0f} ms)", end="")
        print(flush=True)


def _measure_pooled(sense: Sense, config: ImageBindConfig, turns: int) -> None:
    torch.manual_seed(0)
    tower = ImageBind(config, (sense,)).towers[sense].eval().requires_grad_(requires_grad=False)
    inputs = calibration_inputs(sense, config.encoders)
    sizes = config.to_dict()
    share = flops(sizes, sense, "fp32-pooled") / flops(sizes, sense)
    print(f"{sense} pooled, whole encoder: {share:.1%} of the operations", end="")
    assert isinstance(tower, PatchTower)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for forms, module in ((_PRECISIONS, tower), (_POOLED_PRECISIONS, PooledTower(tower).eval())):
            model, seen = traced(sense, module, encoders=config.encoders), observe_activations(module, inputs)
            for form in forms:
                path, *_ = save_variant(model, sense, Path(folder), form, seen)
                sessions[form] = open_session(read_graph(path), None, 1)
        for form, pooled in zip(_PRECISIONS, _POOLED_PRECISIONS, strict=True):
            pair = sessions[form], sessions[pooled]
            times = np.array(
                [[_encoded_s(each, inputs[turn % len(inputs)]) for each in pair] for turn in range(1 + turns)]
            )
            ratio, took_ms = np.median(times[1:, 0] / times[1:, 1]), 1e3 * np.median(times[1:], axis=0)
            print(f"; {form} {ratio:.2f} times as fast ({took_ms[1]:.0f} of {took_ms[0]:.0f} ms)", end="")
    print(flush=True)


def _encoded_s(session: Any, prepared: NDArray[np.float32]) -> float:
    start_s = time.process_time()
    session.run(None, {session.get_inputs()[0].name: prepared})
    return time.process_time() - start_s


def _operations(sense: Sense, way: Way) -> int:
    """Operations of the whole encoder on an input that is not the first."""
    image = torch.empty(1, *(FRAME if sense == "vision" else LOG_MEL), device="meta")
    with torch.device("meta"), torch.no_grad():
        way.encoder(image)
        with FlopCounterMode(display=False) as counter:
            way.encoder(image)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    sys.exit(main())
