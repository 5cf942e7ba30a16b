"""PyTorch → ONNX: one file per encoder and one for the head, their weights beside them."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.backends import Graph
from ovavel.runtime.errors import ExportError, MissingExtraError

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor, nn

__all__ = ["OPSET", "GraphSpec", "SPECS", "example_inputs", "export_graph"]

# B batch, T segments, D embedding size, C classes with the background last

OPSET = 20

_EXAMPLE = {"B": 2, "T": 10, "C": 3}
"""Sizes the graphs are traced with. They must be above 1, or PyTorch would take them for constants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """Names and shapes at the border of a graph. A letter in a shape may differ from call to call, but for D."""

    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]


SPECS: dict[Graph, GraphSpec] = {
    "vision": GraphSpec(inputs={"frames": ("B", 3, 224, 224)}, outputs=("embedding",)),
    "audio": GraphSpec(inputs={"log_mel": ("B", 1, 128, 204)}, outputs=("embedding",)),
    "text": GraphSpec(inputs={"tokens": ("B", 77)}, outputs=("embedding",)),
    "head": GraphSpec(
        inputs={"audio": ("B", "T", "D"), "vision": ("B", "T", "D"), "text": ("C", "D")},
        outputs=("audio_similarity", "vision_similarity", "score"),
    ),
}


def export_graph(name: Graph, module: nn.Module, folder: Path, *, embedding_size: int) -> list[Path]:
    """Write `NAME.onnx` and `NAME.onnx.data` into `folder`; return the files.

    The graph carries no trace of the machine that wrote it: the same module gives the same bytes.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: PyTorch could not express `module` in ONNX.
    """
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export", need="Writing ONNX files") from error
    import torch

    spec = SPECS[name]
    inputs = example_inputs(name, embedding_size)
    dynamic = tuple(
        {axis: torch.export.Dim(size) for axis, size in enumerate(shape) if isinstance(size, str) and size != "D"}
        for shape in spec.inputs.values()
    )
    path = folder / f"{name}.onnx"
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
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=dynamic,
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"PyTorch could not express the {name} graph in ONNX: {error}") from error
    finally:
        logger.setLevel(level)
    if program is None:
        raise ExportError(f"PyTorch gave no {name} graph")
    model = program.model
    _simplify(model)
    for node in model.graph:
        for value in node.outputs:
            # An inner value that PyTorch happens to call as we call an output would make the file invalid.
            if value.name in spec.outputs and not value.is_graph_output():
                value.name = f"{value.name}_inner"
    program.save(path, external_data=True)
    weights = path.with_name(path.name + ".data")
    if not weights.stat().st_size:  # a head without blocks has none
        weights.unlink()
        return [path]
    return [path, weights]


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants and drop what is not used.

    Not PyTorch's own optimisation, which also rewrites `x + 1e-8` to `x`: the scores would divide zero by zero.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    common.InlinePass()(model)
    for _ in range(2):
        optimizer.fold_constants(model)
        common.RemoveUnusedNodesPass()(model)
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


def example_inputs(name: Graph, embedding_size: int) -> tuple[Tensor, ...]:
    """Return inputs that fit the graph: random, but the same each time."""
    import torch

    random = torch.Generator().manual_seed(0)
    inputs = []
    for shape in SPECS[name].inputs.values():
        sizes = [size if isinstance(size, int) else _EXAMPLE.get(size, embedding_size) for size in shape]
        if name == "text":
            inputs.append(torch.randint(0, 49_408, sizes, generator=random))
        else:
            inputs.append(torch.randn(sizes, generator=random))
    return tuple(inputs)
