"""Dynamic quantization during export: float32 matrices to integers, for ONNX Runtime on the CPU.

ONNX Runtime's own quantizer does the same to a finished file. It holds all weights twice, failed on graphs of more
than 2 GB and supports neither migration nor 16 bits, so this one works on the graph in memory, one block at a time.

A linear layer computes in one of four modes. CPUs multiply only 8-bit integers; 16 bits are composed of two of them, of
which the second holds the rounding error of the first:

    8x8    round(x) @ round(W)                                  one product
    16x8   (round(x) + round(x - round(x))) @ round(W)          two: for activations that need more than 8 bits
    16x16  the same for W, without the product of both errors   three: as accurate as float32 sums
    float  x @ W

On a CPU without 8-bit dot products, ONNX Runtime adds two neighbouring products in 16 bits, where the sum saturates
(AVX2's vpmaddubsw). `any_cpu` rounds each matrix so that no such sum can exceed 16 bits, whatever the activation. The
result is then the same on every CPU, at the cost of at most one bit of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.export.precision.activations import Activation
from ovavel.export.precision.linears import (
    CONTRIB,
    Linear,
    array,
    constant,
    find_linears,
    fuse_attention,
    producer,
    replace,
)
from ovavel.runtime.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["INT8", "INT8_ANY", "INT16", "INT16_ANY", "QuantizeRecipe", "quantize", "rounding_noise"]

# B batch, N tokens, R rows of an activation, I inputs and O outputs of a matrix

Mode = Literal["8x8", "16x8", "16x16", "float"]
"""Bits of the activation and of the matrix."""

_LARGEST = 127
"""Largest weight; -128 stays unused, so that the range is symmetric."""
_LARGEST_PAIR = 127
"""Largest sum of two neighbouring weights of one sign before rounding, where products are added in 16 bits: rounding
makes it 128 at most, and 255 * 128 < 2 ** 15."""
_STEPS = 255
"""Steps of an activation, uint8 with a zero point."""
_SMALLEST = 1e-5
"""Smallest peak: keeps the factor of a channel that was always 0 bounded."""
_TINY = np.finfo(np.float32).tiny
_PER_BLOCK = 4
"""Linear layers of a transformer block, in execution order: queries, keys and values; the output of attention; the two
of the perceptron."""

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeRecipe:
    """Settings for quantizing the linear layers of an encoder's blocks. What lies outside them stays float32."""

    mode: Mode = "8x8"
    """Mode of every layer that is not too noisy in it."""
    migrate: bool = True
    """Move the spread of the activations' channels into the weights first."""
    noise: float | None = None
    """Maximum relative output error of a layer in `mode`; None: any."""
    instead: Mode = "16x8"
    """Mode of noisier layers."""
    any_cpu: bool = False
    """Round the weights so that the sum of two products cannot exceed 16 bits."""


INT8 = QuantizeRecipe(noise=0.1)
"""The fastest that keeps a cosine of 0.99: only very noisy layers take longer."""
INT16 = QuantizeRecipe(mode="16x16")
"""As accurate as float32, and faster on CPUs with 8-bit dot products."""
INT8_ANY, INT16_ANY = replace_fields(INT8, any_cpu=True), replace_fields(INT16, any_cpu=True)
"""The same, but also exact on CPUs without such dot products."""


@dataclass(slots=True, kw_only=True)
class _Layer:
    """A linear layer being quantized."""

    name: str
    linear: Linear
    weights: Floats
    """(I, O)."""
    bias: Floats | None
    """(O,)."""
    seen: Activation


def quantize(model: onnx_ir.Model, seen: Sequence[Activation], recipe: QuantizeRecipe) -> dict[str, Mode]:
    """Quantize the linear layers of `model` to integers, and fuse its attentions.

    A matrix gets one scale per column, symmetric around 0; an activation gets one scale and one zero point for the
    whole tensor, which the graph computes at run time. Sums are int32, so that only rounding costs accuracy.

    Args:
        model: an encoder in float32, as returned by `ovavel.export.graphs.traced`; changed in place.
        seen: activations of its layers, from `observe_activations`.
        recipe: quantization settings.

    Returns:
        Name of each layer → its mode.

    Raises:
        ExportError: `seen` belongs to another encoder, or the graph does not have the form that ovavel exports.
    """
    from onnx_ir.passes import common

    graph = model.graph
    fuse_attention(model)
    linears = find_linears(graph)
    widths = [len(array(linear.matrix)) for linear in linears]
    blocks = _blocks([array(linear.matrix).shape for linear in linears])
    if not blocks or widths != [len(each.peaks) for each in seen[: len(linears)]]:
        raise ExportError(f"the {len(linears)} linear layers of the graph do not match those that were observed")
    modes: dict[str, Mode] = {}
    for number, start in enumerate(blocks):
        block = [
            _Layer(
                name=f"block_{number}.{part}",
                linear=linears[start + i],
                weights=array(linears[start + i].matrix),
                bias=None if (bias := linears[start + i].bias) is None else array(bias),
                seen=seen[start + i],
            )
            for i, part in enumerate(("qkv", "out", "fc1", "fc2"))
        ]
        if recipe.migrate:
            _migrate(graph, block)
        for layer in block:
            modes[layer.name] = _mode(layer, recipe)
            _emit(graph, layer, modes[layer.name], any_cpu=recipe.any_cpu)
    common.RemoveUnusedNodesPass()(model)  # including the gains and offsets before migration
    return modes


def _blocks(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return where each block's four layers begin; layers between blocks, which join tokens, belong to none."""
    starts, place = [], 0
    while place < len(shapes):
        width = shapes[place][0]
        found = shapes[place : place + _PER_BLOCK] == [
            (width, 3 * width),
            (width, width),
            (width, 4 * width),
            (4 * width, width),
        ]
        if found:
            starts.append(place)
        place += _PER_BLOCK if found else 1
    return starts


def _mode(layer: _Layer, recipe: QuantizeRecipe) -> Mode:
    if recipe.noise is None:
        return recipe.mode
    noise = rounding_noise(layer.weights, layer.seen, recipe.mode, any_cpu=recipe.any_cpu)
    return recipe.instead if noise > recipe.noise else recipe.mode


def rounding_noise(weights: Floats, seen: Activation, mode: Mode, *, any_cpu: bool = False) -> float:
    """Return the relative error of a layer in `mode`: the norm of the difference over that of the float32 output.

    Args:
        weights: (I, O).
        seen: activations of the layer.
        mode: mode to evaluate.
        any_cpu: use weights for CPUs that add pairs of products in 16 bits.
    """
    if mode == "float":
        return 0.0
    rounded = _rounded_weights(weights, any_cpu=any_cpu)
    matrix = rounded.high * rounded.scale + (rounded.low * rounded.low_scale if mode == "16x16" else 0)
    error = total = 0.0
    for rows in seen.rows:
        near = _round_rows(rows)
        if mode != "8x8":
            near = near + _round_rows(rows - near)
        exact = rows @ weights
        error += float(np.square(near @ matrix - exact).sum())
        total += float(np.square(exact).sum())
    return float(np.sqrt(error / total)) if total else 0.0


def _migrate(graph: onnx_ir.Graph, block: Sequence[_Layer]) -> None:
    """Move the spread of the channels of `block`'s activations into its weights, without changing its function.

    With one scale for a whole activation, a few large channels leave no steps for the small ones; a matrix has a scale
    per column. So each channel is divided by a factor, and the corresponding row of the matrix is multiplied by it.
    The factor, (peak of the channel / peak of the row) ** 0.5, is SmoothQuant's (Xiao et al. 2023, equation 4). Where
    the activation comes from a LayerNorm or, through attention, from a linear layer, the division is free: the gain and
    the bias are divided instead. It cannot pass through GELU, so the perceptron's second layer is unchanged.
    """
    qkv, out, fc1, _ = block
    for layer in (qkv, fc1):
        factors = _absorb(layer)
        norm = producer(layer.linear.activation, "LayerNormalization")
        for i, name in ((1, "gain"), (2, "offset")):
            norm.replace_input_with(i, constant(graph, f"{layer.name}.{name}", array(norm.inputs[i]) / factors))
    # Attention mixes tokens but not channels, so the values can be divided before it instead of after it.
    factors = _absorb(out)
    before = np.concatenate([np.ones(qkv.weights.shape[1] - len(factors), np.float32), factors])
    qkv.weights = qkv.weights / before
    if qkv.bias is not None:
        qkv.bias = qkv.bias / before
    attention = out.linear.activation.producer()
    fused = attention is not None and attention.op_type == "MultiHeadAttention"
    values = attention.inputs[2] if attention and fused else None
    if values and (joined := values.producer()) and joined.op_type == "Concat":  # with an extra token
        extra = producer(joined.inputs[1], "Add")
        extra.replace_input_with(1, constant(graph, f"{out.name}.extra_value", array(extra.inputs[1]) / factors))


def _absorb(layer: _Layer) -> Floats:
    """Multiply the rows of a layer's matrix by their factors, (I,), and return the factors."""
    peaks = np.maximum(layer.seen.peaks, _SMALLEST)
    factors: Floats = np.sqrt(peaks / np.maximum(np.abs(layer.weights).max(axis=1), _SMALLEST))
    layer.weights = layer.weights * factors[:, None]
    layer.seen = layer.seen.divided(factors)
    return factors


@dataclass(frozen=True, slots=True, kw_only=True)
class _RoundedWeights:
    """Decomposition weights ≈ high * scale + low * low_scale."""

    high: NDArray[np.int8]
    """(I, O)."""
    scale: Floats
    """(O,)."""
    low: NDArray[np.int8]
    """(I, O)."""
    low_scale: Floats
    """(O,)."""


def _rounded_weights(weights: Floats, *, any_cpu: bool) -> _RoundedWeights:
    largest = np.abs(weights).max(axis=0) / np.float32(_LARGEST)
    steps = _LARGEST  # of the rounding error
    if any_cpu:
        largest = np.maximum(largest, _largest_pair(weights) / np.float32(_LARGEST_PAIR))
        steps = _LARGEST_PAIR // 2
    scale = np.maximum(largest, _TINY)
    high = np.rint(weights / scale)
    low_scale = np.maximum(scale / np.float32(2 * steps), _TINY)
    low = np.rint((weights - high * scale) / low_scale).clip(-steps, steps)
    return _RoundedWeights(high=high.astype(np.int8), scale=scale, low=low.astype(np.int8), low_scale=low_scale)


def _largest_pair(weights: Floats) -> Floats:
    """Return for each column, (O,), the largest sum of the weights of one sign in rows 2i and 2i + 1.

    ONNX Runtime packs four rows together and adds the products of the first two and of the last two.
    """
    pairs = np.pad(weights, ((0, len(weights) % 2), (0, 0))).reshape(-1, 2, weights.shape[1])
    positive, negative = (np.maximum(sign * pairs, 0).sum(axis=1).max(axis=0) for sign in (1, -1))
    largest: Floats = np.maximum(positive, negative)
    return largest


def _round_rows(rows: Floats) -> Floats:
    """Round to the steps that ONNX's DynamicQuantizeLinear chooses for these rows."""
    step = (max(rows.max(), 0) - min(rows.min(), 0)) / _STEPS
    rounded: Floats = np.rint(rows / step) * step if step else rows
    return rounded


def _emit(graph: onnx_ir.Graph, layer: _Layer, mode: Mode, *, any_cpu: bool) -> None:
    """Replace the layer's nodes by those of `mode`."""
    import onnx_ir

    def put(name: str, values: NDArray[np.generic]) -> onnx_ir.Value:
        return constant(graph, f"{layer.name}.{name}", values)

    x = layer.linear.activation
    rounded = _rounded_weights(layer.weights, any_cpu=any_cpu)
    if mode == "8x8" and (split := _split(layer.linear)):
        # Three products of one rounded activation: the Split would copy all queries, keys and values on one thread.
        first = onnx_ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
        products = [
            _product(
                first,
                put(f"high_{part}", np.ascontiguousarray(rounded.high[:, own])),
                put(f"scale_{part}", rounded.scale[own]),
                None if layer.bias is None else put(f"bias_{part}", layer.bias[own]),
            )
            for part, own in enumerate(np.split(np.arange(layer.weights.shape[1]), len(split.outputs)))
        ]
        replace(graph, [*layer.linear.nodes, split], [first, *products], [each.outputs[0] for each in products])
        return
    bias = None if layer.bias is None else put("bias", layer.bias)
    if mode == "float":
        nodes = [onnx_ir.node("MatMul", [x, put("weight", layer.weights)])]
        if bias:
            nodes.append(onnx_ir.node("Add", [nodes[0].outputs[0], bias]))
        replace(graph, layer.linear.nodes, nodes)
        return
    high, scale = put("high", rounded.high), put("scale", rounded.scale)
    if mode == "8x8":
        inputs = [x, high, scale, None, bias]
        replace(graph, layer.linear.nodes, [onnx_ir.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB)])
        return
    first = onnx_ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    near = onnx_ir.node("DequantizeLinear", first.outputs)
    rest = onnx_ir.node("Sub", [x, near.outputs[0]])
    second = onnx_ir.node("DynamicQuantizeLinear", rest.outputs, num_outputs=3)
    products = [_product(first, high, scale, bias), _product(second, high, scale)]
    if mode == "16x16":
        products.append(_product(first, put("low", rounded.low), put("low_scale", rounded.low_scale)))
    nodes = [first, near, rest, second, *products]
    total = products[0]
    for product in products[1:]:  # not Sum: ONNX Runtime runs it on one thread
        total = onnx_ir.node("Add", [total.outputs[0], product.outputs[0]])
        nodes.append(total)
    replace(graph, layer.linear.nodes, nodes)


def _split(linear: Linear) -> onnx_ir.Node | None:
    """Return the node that splits the output of `linear` into equal parts, if that is all that uses it."""
    output = linear.nodes[-1].outputs[0]
    users = [use.node for use in output.uses()]
    if len(users) != 1 or users[0].op_type != "Split" or len(users[0].inputs) != 1:
        return None
    axis = users[0].attributes.get_int("axis", 0)
    return users[0] if axis == -1 or axis == len(output.shape or ()) - 1 else None


def _product(
    rounded: onnx_ir.Node, matrix: onnx_ir.Value, scale: onnx_ir.Value, bias: onnx_ir.Value | None = None
) -> onnx_ir.Node:
    import onnx_ir

    rows, step, zero = rounded.outputs
    return onnx_ir.node("MatMulIntegerToFloat", [rows, matrix, step, scale, zero, None, bias], domain=CONTRIB)
