"""Heads of every kind, sabotaged in their graphs: the self-check catches each and names its stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.headed_bundle import with_head
from support.made_heads import KINDS, made, noisy
from support.proofs import proof_unless
from support.sabotage import check_stage, constants, graph_surgery, put, relist

from ovavel.eval.demo import assets
from ovavel.runtime.bundle.bundle import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEMO = Path(assets.__file__).parent / "bundle"
DIM = 64
"""Of the demo's embeddings."""

Surgery = Callable[[onnx.GraphProto], None]


def exchanged(first: str, second: str) -> Surgery:
    """Two inputs of the graph change places."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = {first: second, second: first}.get(name, name)

    return change


def constant(value: float, instead: float, op: str) -> Surgery:
    """A constant of the nodes of one kind has another value."""

    def change(graph: onnx.GraphProto) -> None:
        known = constants(graph)
        held = [known[name] for node in graph.node if node.op_type == op for name in node.input if name in known]
        found = [each for each in held if not each.dims and np.isclose(numpy_helper.to_array(each), value)]
        assert found
        for each in found:
            put(each, np.array(instead, np.float32))

    return change


def without(op: str, number: int = 0) -> Surgery:
    """One node of a kind passes on what it gets."""

    def change(graph: onnx.GraphProto) -> None:
        node = [each for each in graph.node if each.op_type == op][number]
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]]))

    return change


def scaled_by_the_lowest(graph: onnx.GraphProto) -> None:
    """The score of each class is divided by that of the lowest, not of the highest."""
    for node in graph.node:
        node.op_type = "ReduceMin" if node.op_type == "ReduceMax" else node.op_type


def transposed(graph: onnx.GraphProto) -> None:
    """The first square matrix is transposed."""
    known = constants(graph)
    matrices = [known[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in known]
    square = next(each for each in matrices if len(set(each.dims)) == 1)
    put(square, numpy_helper.to_array(square).T)


def reversed_in_time(graph: onnx.GraphProto) -> None:
    """The kernels of the wide convolutions run backwards."""
    wide = [each for each in graph.initializer if len(each.dims) > 2 and each.dims[2] in (3, 5)]
    assert wide
    for kernel in wide:
        put(kernel, np.flip(numpy_helper.to_array(kernel), axis=2))


def unmasked(graph: onnx.GraphProto) -> None:
    """Attention sees all segments, however far."""
    known = constants(graph)
    (far,) = {
        name
        for node in graph.node
        if node.op_type == "Where"
        for name in node.input
        if name in known and not known[name].dims and np.isneginf(numpy_helper.to_array(known[name]))
    }
    put(known[far], np.array(0, np.float32))


def without_statistics(graph: onnx.GraphProto) -> None:
    """A batch norm divides by what a batch of other data had."""
    node = next(node for node in graph.node if node.op_type == "BatchNormalization")
    variance = constants(graph)[node.input[4]]
    put(variance, np.ones(variance.dims, np.float32))


EVERY: Mapping[str, Surgery] = {
    "senses exchanged": exchanged("audio", "vision"),
    "missing audio scale": constant(20, 1, "Mul"),
}
OWN: Mapping[str, Mapping[str, Surgery]] = {
    "temporal": {"no residual norm": without("LayerNormalization"), "no softmax": without("Softmax")},
    "ave": {
        "matrix transposed": transposed,
        "sum instead of mean": constant(2, 1, "Div"),
        "no tanh": without("Tanh", 3),
    },
    "psp": {
        "matrix transposed": transposed,
        "threshold": constant(0.95, 0.5, "Mul"),
        "weak connections kept": constant(0.95, 0, "Mul"),
        "no norm": without("LayerNormalization"),
    },
    "cmra": {
        "matrix transposed": transposed,
        "scale of scores": constant(np.sqrt(DIM / 4), 1, "Div"),
        "no softmax": without("Softmax"),
        "last softmax": without("Softmax", -1),
    },
    "mm-pyramid": {
        "matrix transposed": transposed,
        "no mask": unmasked,
        "convolution backwards": reversed_in_time,
        "gates always open": without("Sigmoid"),
    },
    "complex": {
        "convolution backwards": reversed_in_time,
        "batch statistics": without_statistics,
        "no relu": without("Relu", -1),
        "scaled by the lowest": scaled_by_the_lowest,
    },
}
SABOTAGES = {f"{kind}: {name}": (kind, each) for kind in KINDS for name, each in (EVERY | OWN[kind]).items()}
FUSING = ("convolution backwards", "batch statistics", "no relu", "scaled by the lowest")
"""What concerns how `complex` fuses, and not the features of its trunk."""


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the demo's bundle with a head of another kind, as it should be: do not change it."""
    root = tmp_path_factory.mktemp("heads")

    @cache
    def make(kind: str) -> Path:
        return with_head(DEMO, noisy(made(kind, dim=DIM)), root / kind).path

    return make


def in_ci(name: str) -> bool:
    """A head with a score of its own, and one without."""
    return name.startswith(("temporal", "complex"))


@pytest.mark.parametrize("name", proof_unless(in_ci, SABOTAGES))
def test_a_sabotaged_head_is_caught_and_the_stage_named(
    name: str, tmp_path: Path, headed: Callable[[str], Path]
) -> None:
    kind, surgery = SABOTAGES[name]
    folder = Path(shutil.copytree(headed(kind), tmp_path / "bundle"))
    graph_surgery("head.onnx", surgery)(folder)
    relist(folder)
    fuses = kind == "complex" and name.removeprefix("complex: ") in FUSING
    assert check_stage(Bundle.open(folder)) == ("score" if fuses else "similarity")


@pytest.mark.parametrize("kind", proof_unless(in_ci, KINDS))
def test_an_untouched_head_passes(kind: str, headed: Callable[[str], Path]) -> None:
    bundle = Bundle.open(headed(kind))
    assert bundle.manifest.model.head == kind
    assert check_stage(bundle) is None
