"""PyTorch → ONNX: one file per encoder and one for the head, their weights beside them."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.export.precision.activations import Activation
from ovavel.export.precision.passes import PASSES
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS, Encoders, Graph, graph_specs
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.errors import ExportError, MissingExtraError

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor, nn

__all__ = ["OPSET", "example_inputs", "save_variant", "traced", "traced_module"]

# B batch, T segments, C classes with the background last

OPSET = 20

_EXAMPLE = {"B": 2, "T": 10, "C": 3}
"""Sizes the graphs are traced with. They must be above 1, or PyTorch would take them for constants."""


def traced(name: Graph, module: nn.Module, *, encoders: Encoders) -> onnx_ir.Model:
    """Express `module` in ONNX, in fp32, simplified: what all precisions are made from.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: PyTorch could not express `module` in ONNX.
    """
    import torch

    spec = graph_specs(encoders)[name]
    inputs = example_inputs(name, encoders)
    dynamic = tuple(
        {axis: torch.export.Dim(size) for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in spec.inputs.values()
    )
    return traced_module(module, inputs, list(spec.inputs), list(spec.outputs), dynamic_shapes=dynamic, title=name)


def traced_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    dynamic_shapes: tuple[dict[int, Any], ...] | None = None,
    title: str,
) -> onnx_ir.Model:
    """Express any `module` as `traced` does. `title` names it in errors.

    Sizes are those of `inputs`, but for `dynamic_shapes`: the dynamic axes of each input.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: PyTorch could not express `module` in ONNX.
    """
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export", need="Writing ONNX files") from error
    import torch

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=dynamic_shapes,
                custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"PyTorch could not express the {title} graph in ONNX: {error}") from error
    finally:
        logger.setLevel(level)
    if program is None:
        raise ExportError(f"PyTorch gave no {title} graph")
    model = program.model
    _simplify(model)
    inner = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    for value in inner:
        # A weight or value that PyTorch happens to call as we call an output would make the file invalid.
        if value.name in output_names and not value.is_graph_output():
            value.name = f"{value.name}_{'weight' if value.is_initializer() else 'inner'}"
    return model


def save_variant(
    model: onnx_ir.Model, name: Graph, folder: Path, precision: Precision, seen: Sequence[Activation] = ()
) -> list[Path]:
    """Write `NAME.onnx`, or `NAME.PRECISION.onnx`, and its `.data` into `folder`; return the files.

    `model`, as `traced` gave it, stays as it is; its weights are not copied but one by one. The file carries no trace
    of the machine that wrote it: the same model gives the same bytes. A precision in `FITTED` needs what the layers
    were `seen` to get.
    """
    import onnx_ir

    path = folder / (f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx")
    variant = model.clone()
    PASSES[precision](variant, seen)
    onnx_ir.save(variant, path, external_data=f"{path.name}.data")
    weights = path.with_name(path.name + ".data")
    if not weights.stat().st_size:  # a head without blocks has none
        weights.unlink()
        return [path]
    return [path, weights]


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention over (B, H, N, K) in ONNX's elementary operators, those that every engine knows.

    PyTorch's own translation works out shapes at run time to transpose the keys, and engines do not fuse it.
    """
    import onnx_ir
    from onnxscript import opset20 as op

    if (attn_mask is not None and attn_mask.dtype != onnx_ir.DataType.FLOAT) or dropout_p or enable_gqa:
        raise ExportError("attention with a mask of true and false, dropout or grouped queries is not exported")
    size = query.shape[3]
    scores = op.MatMul(op.Mul(query, scale or 1 / math.sqrt(size)), op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    if is_causal:
        future = np.triu(np.full((query.shape[2], key.shape[2]), -np.inf, np.float32), 1)
        scores = op.Add(scores, op.Constant(value=onnx_ir.tensor(future)))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _fix_shapes(model: onnx_ir.Model) -> None:
    """Give each Reshape a constant shape, with -1 for the one size that may differ from call to call.

    What is worked out at run time, engines work out on the CPU, and a GPU waits for it.
    """
    import onnx_ir

    for node in model.graph:
        shape = node.outputs[0].shape
        if node.op_type != "Reshape" or shape is None:
            continue
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) <= 1 and 0 not in sizes:
            name = f"{node.outputs[0].name}_shape"
            value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(np.array(sizes, np.int64), name=name))
            model.graph.register_initializer(value)
            node.replace_input_with(1, value)


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants and drop what is not used.

    Not PyTorch's own optimization, which also rewrites `x + 1e-8` to `x`: the scores would divide zero by zero.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    common.InlinePass()(model)
    _fix_shapes(model)
    for _ in range(2):
        optimizer.fold_constants(model)
        common.RemoveUnusedNodesPass()(model)
    _join_transposes(model)
    for tidy in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),  # source lines and paths of the writing machine
    ):
        tidy(model)
    _fold_query_scales(model)
    common.RemoveUnusedNodesPass()(model)


def _join_transposes(model: onnx_ir.Model) -> None:
    """Let each Transpose of a Transpose read what that one reads: the keys of attention are transposed twice."""
    import onnx_ir

    for node in model.graph:
        before = node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] else None
        if before is not None and before.op_type == "Transpose":
            first, second = (each.attributes["perm"].as_ints() for each in (before, node))
            node.attributes.add(onnx_ir.AttrInt64s("perm", [first[axis] for axis in second]))
            node.replace_input_with(0, before.inputs[0])


def _fold_query_scales(model: onnx_ir.Model) -> None:
    """Scale the columns of the matrix that makes the queries, once, and not the queries each time."""
    import onnx_ir

    for node in list(model.graph):
        factor = node.inputs[1].const_value if node.op_type == "Mul" and node.inputs[1] else None
        if factor is None or factor.size != 1 or node.inputs[0] is None:
            continue
        columns, constants = _made_of(node.inputs[0])
        for constant in constants:
            assert constant.const_value is not None
            scaled = constant.const_value.numpy().copy()
            scaled[..., columns] *= factor.numpy().item()
            constant.const_value = onnx_ir.tensor(scaled, name=constant.name)
        if constants:
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            model.graph.remove(node, safe=True)


def _made_of(value: onnx_ir.Value) -> tuple[slice, tuple[onnx_ir.Value, ...]]:
    """Return the matrix and the bias that `value` comes from, and which of their columns; none where there is more."""
    columns = slice(None)
    while (node := value.producer()) and len(value.uses()) == 1 and node.inputs[0]:
        source = node.inputs[0]
        if node.op_type == "Add" and (product := source.producer()) and product.op_type == "MatMul":
            constants = tuple(each for each in (product.inputs[1], node.inputs[1]) if each and each.const_value)
            return (columns, constants) if [len(each.uses()) for each in constants] == [1, 1] else (columns, ())
        width = value.shape[-1] if value.shape is not None else None
        if node.op_type == "Split" and value is node.outputs[0] and isinstance(width, int):
            columns = slice(0, width)
        elif node.op_type not in ("Reshape", "Slice", "Transpose", "Unsqueeze"):
            break
        value = source
    return columns, ()


def example_inputs(name: Graph, encoders: Encoders) -> tuple[Tensor, ...]:
    """Return inputs that fit the graph: random, but the same each time."""
    import torch

    random = torch.Generator().manual_seed(0)
    inputs = []
    for shape in graph_specs(encoders)[name].inputs.values():
        sizes = [size if isinstance(size, int) else _EXAMPLE[size] for size in shape]
        if name in TEXT_GRAPHS:
            inputs.append(torch.randint(0, 100, sizes, generator=random))  # small models know fewer tokens than CLIP
        else:
            inputs.append(torch.randn(sizes, generator=random))
    return tuple(inputs)
