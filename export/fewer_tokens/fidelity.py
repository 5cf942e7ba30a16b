"""How near encoders that compute fewer tokens stay: `python -m ovavel.export.fewer_tokens.fidelity --help`.

The demo's encoders watch days of the demo world, in full and with fewer tokens. Embeddings are compared by 1 - cosine,
and decisions second by second, each sense with the other one in full, by the bundle's head and rule. "The second
before" keeps the embedding of the last second in place of computing one: what a method has to be far better than.
With `--int8`, sound is also run as it is exported in int8, in full and pooled.

Shapes: T seconds of a day, D embedding size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor, nn

from ovavel.eval.demo.assets import Assets
from ovavel.eval.demo.world.day import Day
from ovavel.eval.demo.world.plan import DayKind
from ovavel.export.fewer_tokens.towers import POOLINGS, ChangedTokens, FewerTokens
from ovavel.export.graphs import save_variant, traced
from ovavel.export.inputs import calibration_inputs
from ovavel.export.precision.activations import observe_activations
from ovavel.export.precision.linears import array, find_linears, producer
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.backends.onnxruntime.sessions import open_session
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.errors import ExportError
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.preprocess import find_preparation
from ovavel.runtime.types import LAG, WINDOW_S, Segment, Sense
from ovavel.training.models.imagebind.model import Block, ImageBind, ImageBindConfig, PatchTower
from ovavel.training.models.imagebind.pooled import PooledTower

__all__ = ["decided", "main", "read_tower"]

Encode: TypeAlias = Callable[[Tensor], Tensor]
_SENSES: tuple[Sense, ...] = ("vision", "audio")
_NEAR = 1e-5


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch days, compare, print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", nargs="+", choices=get_args(DayKind), default=["sparse", "dense"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=int, default=300, help="of each day, from six in the morning")
    parser.add_argument("--budgets", nargs="*", type=int, default=[64, 128], help="of changed tokens")
    parser.add_argument("--merged", nargs="*", type=int, default=[32, 56], help="tokens merged in a block")
    parser.add_argument("--int8", action="store_true", help="run sound as it is exported in int8, too")
    options = parser.parse_args(arguments)
    bundle = Assets.open().bundle
    towers = {sense: read_tower(bundle, sense) for sense in _SENSES}
    exported: dict[str, Encode] = {}
    if options.int8:
        pooled = PooledTower(towers["audio"]).eval()
        exported = {"int8": _exported(towers["audio"], "int8"), "int8-pooled": _exported(pooled, "int8-pooled")}
    found: dict[tuple[Sense, str], list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {}
    with closing(open_backend(bundle, device="cpu", graphs=("head",))) as backend, torch.inference_mode():
        for day in (Day(kind, seed, options.seconds) for kind in options.days for seed in options.seeds):
            ways = {sense: _ways(sense, towers[sense], options.budgets, options.merged) for sense in _SENSES}
            ways["audio"] |= exported
            seen = _watch(bundle, day, ways)
            full = {sense: seen[sense].pop("full") for sense in _SENSES}
            labels = decided(bundle, backend, full["vision"], full["audio"])
            for sense in _SENSES:
                for way, embeddings in seen[sense].items():
                    both = full | {sense: embeddings}
                    same = decided(bundle, backend, both["vision"], both["audio"]) == labels
                    far = 1 - (full[sense].astype(np.float64) * embeddings).sum(axis=1)
                    found.setdefault((sense, way), []).append((far, same))
                    print(f"{day.kind} {day.seed}: {_row(sense, way, far, same)}", flush=True)
    for (sense, way), parts in found.items():
        print(f"all: {_row(sense, way, *(np.concatenate(each) for each in zip(*parts, strict=True)))}")
    return 0


def read_tower(bundle: Bundle, sense: Sense) -> PatchTower:
    """Return an encoder of `bundle` in PyTorch, with the weights of its fp32 graph.

    Raises:
        ExportError: PyTorch and the graph do not give the same embedding.
    """
    import onnx_ir

    model = onnx_ir.load(bundle.graph(sense, "fp32"))
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    for linear in find_linears(model.graph):
        if linear.bias is not None:
            name = str(linear.bias.name).removesuffix("bias")
            weights[f"{name}weight"] = array(linear.matrix).T
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    query = producer(softmax.inputs[0], "MatMul").inputs[0]
    folded = bool(query and (node := query.producer()) and node.op_type != "Mul")
    tower = ImageBind(ImageBindConfig.from_dict(bundle.manifest.model.config), (sense,)).towers[sense]
    assert isinstance(tower, PatchTower)
    tower.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in tower.state_dict()})
    if folded:  # attention's scale is in the matrix that makes the queries
        for block in tower.blocks:
            assert isinstance(block, Block)
            scale = (tower.positions.shape[2] / block.attention.heads) ** 0.5
            for values in (block.attention.qkv.weight, block.attention.qkv.bias):
                values.data[: tower.positions.shape[2]] *= scale
    spec = bundle.manifest.encoders.of(sense)
    probe = default_rng(0).standard_normal((1, *spec.shape)).astype(np.float32)
    session = open_session(read_graph(bundle.graph(sense, "fp32")), None, 1)
    (theirs,) = session.run(None, {spec.input: probe})
    with torch.inference_mode():
        furthest = float(np.abs(tower.eval()(torch.from_numpy(probe)).numpy() - theirs).max())
    if not furthest <= _NEAR:
        raise ExportError(f"the {sense} encoder read from {bundle.path} is {furthest:.2g} from its graph")
    return tower


def _ways(sense: Sense, tower: PatchTower, budgets: Sequence[int], merged: Sequence[int]) -> dict[str, Encode]:
    ways: dict[str, Encode] = {"full": tower}
    if sense == "vision":
        ways |= {f"changed tokens, {budget}": ChangedTokens(tower, budget) for budget in budgets}
    ways |= {f"merged, {count} a block": FewerTokens(tower, count) for count in merged}
    if sense == "audio":
        ways |= {f"half: {kind}": FewerTokens(tower, pool=kind) for kind in POOLINGS}
        ways["half: repeats, mean"] = PooledTower(tower)
    return ways


def _exported(tower: nn.Module, precision: Precision) -> Encode:
    """The graph of an encoder of sound in `precision`, run by ONNX Runtime."""
    encoders = Assets.open().bundle.manifest.encoders
    model = traced("audio", tower, encoders=encoders)
    seen = observe_activations(tower, calibration_inputs("audio", encoders))
    with tempfile.TemporaryDirectory() as folder:
        path, *_ = save_variant(model, "audio", Path(folder), precision, seen)
        session = open_session(read_graph(path), None, 1)
    return lambda prepared: torch.from_numpy(session.run(None, {encoders.audio.input: prepared.numpy()})[0])


def _watch(
    bundle: Bundle, day: Day, ways: Mapping[Sense, Mapping[str, Encode]]
) -> dict[Sense, dict[str, NDArray[np.float32]]]:
    """Encode each second of a day in each way: (T, D) of each."""
    encoders = bundle.manifest.encoders
    prepare = {sense: find_preparation(sense, encoders.of(sense)).prepare for sense in _SENSES}
    seen: dict[Sense, dict[str, list[NDArray[np.float32]]]] = {s: {way: [] for way in ways[s]} for s in _SENSES}
    for second in range(day.seconds):
        given: dict[Sense, NDArray[Any]] = {
            "vision": day.frame(second + WINDOW_S / 2),
            "audio": day.sound(second)[None],
        }
        for sense in _SENSES:
            prepared = torch.from_numpy(prepare[sense](given[sense])[None])
            for way, encode in ways[sense].items():
                seen[sense][way].append(encode(prepared)[0].numpy())
    found = {sense: {way: np.stack(each) for way, each in seen[sense].items()} for sense in _SENSES}
    for each in found.values():
        each["the second before"] = np.concatenate((each["full"][:1], each["full"][:-1]))
    return found


def decided(
    bundle: Bundle, backend: Backend, vision: NDArray[np.float32], audio: NDArray[np.float32]
) -> NDArray[np.str_]:
    """Return the final label of each second, (T,), for embeddings (T, D)."""
    localizer = Localizer(backend.head, bundle.vocabulary, lag=LAG, rule=bundle.manifest.fusion.decides)
    labels = []
    for second, (seen, heard) in enumerate(zip(vision, audio, strict=True)):
        scored = localizer.push(Segment(index=second, start_s=float(second), vision=seen, audio=heard))
        labels += [each.label for each in scored if each.final]
    return np.array(labels + [each.label for each in localizer.flush() if each.final])


def _row(sense: Sense, way: str, far: NDArray[np.float64], same: NDArray[np.bool_]) -> str:
    median, p99 = np.quantile(far, (0.5, 0.99))
    return (
        f"{sense:6} {way:24} 1 - cosine: median {median:.2g}, p99 {p99:.2g}, max {far.max():.2g}; equal decisions "
        f"{100 * same.mean():.2f} % of {len(same)}"
    )


if __name__ == "__main__":
    sys.exit(main())
