"""Finding and replacing the linear layers and attentions of an encoder's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["CONTRIB", "Linear", "array", "constant", "find_linears", "fuse_attention", "producer", "replace"]

# B batch, N tokens, H heads, K size of a head, I inputs and O outputs of a matrix

CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators, which no other engine runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A MatMul with a constant matrix, and the addition of its bias if there is one."""

    activation: onnx_ir.Value
    """(B, N, I)."""
    matrix: onnx_ir.Value
    """(I, O) float32."""
    bias: onnx_ir.Value | None
    """(O,) float32."""
    nodes: tuple[onnx_ir.Node, ...]


def find_linears(graph: onnx_ir.Graph) -> list[Linear]:
    """Return the linear layers in execution order."""
    found = []
    for node in graph:
        if node.op_type != "MatMul" or not _is_constant(node.inputs[1], rank=2):
            continue
        activation, matrix = node.inputs
        assert activation is not None and matrix is not None  # noqa: PT018
        users = [use.node for use in node.outputs[0].uses()]
        added = len(users) == 1 and users[0].op_type == "Add" and _is_constant(users[0].inputs[1], rank=1)
        bias, nodes = (users[0].inputs[1], (node, users[0])) if added else (None, (node,))
        found.append(Linear(activation=activation, matrix=matrix, bias=bias, nodes=nodes))
    return found


def fuse_attention(model: onnx_ir.Model) -> int:
    """Replace each attention's nodes by ONNX Runtime's MultiHeadAttention; return the number of those replaced.

    It takes queries, keys and values as the linear layers produce them, (B, N, H * K), which saves transposed copies of
    them and of the output. The same may be added to the scores of each query and head, (1, 1, 1, keys); attentions with
    more than that added to their scores stay as they are.

    Raises:
        ExportError: an attention does not have the form that `ovavel.export.graphs` produces.
    """
    import onnx_ir
    from onnx_ir.passes import common

    graph = model.graph
    found = [node for node in graph if node.op_type == "Softmax" and (_key_bias(node) or not _is_biased(node))]
    for number, softmax in enumerate(found):
        added = _key_bias(softmax)
        scored = producer(softmax.inputs[0], "Add").inputs[0] if added else softmax.inputs[0]
        scores, mixed = producer(scored, "MatMul"), _user(softmax, "MatMul")
        query, scale = scores.inputs[0], 1.0
        scaling = query.producer() if query else None
        if scaling and scaling.op_type == "Mul":
            query, scale = scaling.inputs[0], float(array(scaling.inputs[1]))
        heads = [_split_into_heads(value) for value in (query, scores.inputs[1], mixed.inputs[1])]
        inputs = [reshape.inputs[0] for reshape in heads]
        if added:
            queries = int(array(heads[0].inputs[1])[1])
            repeated = np.repeat(array(added), queries, axis=2)  # the operator wants a row for each query
            inputs += [None, None, constant(graph, f"attention_{number}.key_bias", repeated)]
        attention = onnx_ir.node(
            "MultiHeadAttention",
            inputs,
            {"num_heads": int(array(heads[0].inputs[1])[2]), "scale": scale},
            domain=CONTRIB,
        )
        merged = _user(_user(mixed, "Transpose"), "Reshape")
        replace(graph, [merged], [attention])
    common.RemoveUnusedNodesPass()(model)  # ONNX Runtime would still run the old attentions
    graph.opset_imports[CONTRIB] = 1
    return len(found)


def replace(
    graph: onnx_ir.Graph,
    old: Sequence[onnx_ir.Node],
    new: Sequence[onnx_ir.Node],
    outputs: Sequence[onnx_ir.Value] = (),
) -> None:
    """Replace `old` by `new`, which produces `outputs`, by default those of its last node; drop unused constants."""
    import onnx_ir

    inputs = [value for node in old for value in node.inputs if value is not None]
    last = old[-1]
    onnx_ir.convenience.replace_nodes_and_values(graph, last, old[::-1], new, last.outputs, outputs or new[-1].outputs)
    for value in inputs:
        if value.name and value.name in graph.initializers and not value.uses():
            del graph.initializers[value.name]


def constant(graph: onnx_ir.Graph, name: str, values: NDArray[np.generic]) -> onnx_ir.Value:
    """Add an initializer called `name`."""
    import onnx_ir

    tensor = onnx_ir.tensor(values, name=name)
    kind = onnx_ir.TensorType(tensor.dtype)
    value = onnx_ir.Value(name=name, shape=onnx_ir.Shape(values.shape), type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def array(value: onnx_ir.Value | None) -> NDArray[np.float32]:
    """Return the data of the constant `value`."""
    assert value is not None and value.const_value is not None  # noqa: PT018
    found: NDArray[np.float32] = value.const_value.numpy()
    return found


def producer(value: onnx_ir.Value | None, kind: str) -> onnx_ir.Node:
    """Return the node of operator `kind` that produces `value`.

    Raises:
        ExportError: `value` is produced by something else.
    """
    node = value.producer() if value else None
    if node is None or node.op_type != kind:
        raise ExportError(
            f"the graph has no {kind} where one was expected: it does not have the form that ovavel exports"
        )
    return node


def _key_bias(softmax: onnx_ir.Node) -> onnx_ir.Value | None:
    """Return the constant, (1, 1, 1, keys), that is added to the scores that `softmax` reads; None if there is none."""
    node = softmax.inputs[0].producer() if softmax.inputs[0] else None
    added = node.inputs[1] if node and node.op_type == "Add" else None
    if added is None or not _is_constant(added, rank=4):
        return None
    return added if array(added).shape[:3] == (1, 1, 1) else None


def _is_biased(softmax: onnx_ir.Node) -> bool:
    """Whether something is added to the scores that `softmax` reads, perhaps by groups of sequences."""
    value = softmax.inputs[0]
    while value and (node := value.producer()) and node.op_type == "Reshape":
        value = node.inputs[0]
    return bool(value and (node := value.producer()) and node.op_type == "Add")


def _is_constant(value: onnx_ir.Value | None, *, rank: int) -> bool:
    return value is not None and value.const_value is not None and len(value.const_value.shape) == rank


def _split_into_heads(value: onnx_ir.Value | None) -> onnx_ir.Node:
    """Return the Reshape, (B, N, H * K) → (B, N, H, K), that `value` is transposed from."""
    while value and (node := value.producer()) and node.op_type == "Transpose":
        value = node.inputs[0]
    return producer(value, "Reshape")


def _user(node: onnx_ir.Node, kind: str) -> onnx_ir.Node:
    users = [use.node for use in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != kind:
        raise ExportError(f"an attention of the graph is not followed by one {kind}; it cannot be fused")
    return users[0]
