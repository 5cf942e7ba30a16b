"""Candidates of the frontier: ways to run the encoders on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ovavel.export.precision.activations import Activation
from ovavel.export.precision.linears import CONTRIB, array, constant, find_linears, fuse_attention, replace
from ovavel.export.precision.passes import PASSES
from ovavel.export.precision.quantize import QuantizeRecipe, quantize
from ovavel.runtime.bundle.precision import Precision, exact_here
from ovavel.runtime.system.hardware import cpu_features

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["CANDIDATES", "REFERENCE", "Candidate", "chosen"]

# I inputs and O outputs of a matrix, K blocks of a column

REFERENCE = "PyTorch eager fp32"
_BLOCK = 128
_CAREFUL = 0.03

Write = Callable[["onnx_ir.Model", Sequence[Activation]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run both encoders."""

    name: str
    engine: Literal["torch", "onnxruntime", "onnxruntime, one graph", "openvino"]
    file: str = "fp32"
    """Form of the graphs that it runs; several candidates may share one."""
    write: Write | None = None
    """Pass that converts the fp32 graphs to that form, in place."""
    computes: Literal["fp32", "bf16", "int8-static"] = "fp32"
    """Precision that PyTorch or OpenVINO is configured to compute in."""
    gate: Precision = "int8"
    """The precision whose gate applies, and which needs the same CPU features."""
    exported: bool = False
    """Whether a bundle can contain it, as `gate`. Others are only compared and never become the default."""

    @property
    def exact(self) -> bool:
        """Whether this CPU sums its products without saturation."""
        engine = "openvino" if self.engine == "openvino" else "onnxruntime-cpu"
        return exact_here(engine, self.gate, (), cpu_features())


def quantize_blocks(model: onnx_ir.Model) -> None:
    """Replace the linear layers' products by ONNX Runtime's MatMulNBits: 8-bit weights with a scale per block.

    With accuracy level 4 it also rounds the activation to 8 bits, with a scale per block of a row.
    """
    import onnx_ir

    fuse_attention(model)
    for number, linear in enumerate(find_linears(model.graph)):
        weights = array(linear.matrix).T  # (O, I)
        outputs, size = weights.shape
        blocks = -(-size // _BLOCK)
        padded = np.pad(weights, ((0, 0), (0, blocks * _BLOCK - size))).reshape(outputs, blocks, _BLOCK)  # (O, K, _)
        scales = np.maximum(np.abs(padded).max(axis=-1) / np.float32(127), np.finfo(np.float32).tiny)
        rounded = (np.rint(padded / scales[..., None]) + 128).astype(np.uint8)
        product = onnx_ir.node(
            "MatMulNBits",
            [
                linear.activation,
                constant(model.graph, f"linear_{number}.weight", rounded),
                constant(model.graph, f"linear_{number}.scales", scales.reshape(-1)),
            ],
            {"K": size, "N": outputs, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4},
            domain=CONTRIB,
        )
        nodes = [product]
        if linear.bias is not None:
            nodes.append(onnx_ir.node("Add", [product.outputs[0], linear.bias]))
        replace(model.graph, linear.nodes, nodes)


def _by(recipe: QuantizeRecipe) -> Write:
    return lambda model, seen: quantize(model, seen, recipe)


CANDIDATES: tuple[Candidate, ...] = (
    Candidate(name=REFERENCE, engine="torch", gate="fp32"),
    Candidate(name="PyTorch eager bf16", engine="torch", computes="bf16", gate="bf16"),
    Candidate(name="ONNX Runtime fp32", engine="onnxruntime", gate="fp32", exported=True),
    Candidate(
        name="ONNX Runtime int16: 16-bit activations and weights",
        engine="onnxruntime", file="int16", write=PASSES["int16"], gate="int16", exported=True,
    ),
    Candidate(
        name="ONNX Runtime int16-any: the same, for every CPU",
        engine="onnxruntime", file="int16-any", write=PASSES["int16-any"], gate="int16-any", exported=True,
    ),
    Candidate(
        name="ONNX Runtime int8, plain dynamic",
        engine="onnxruntime", file="plain", write=_by(QuantizeRecipe(migrate=False)),
    ),
    Candidate(
        name="… + outlier migration",
        engine="onnxruntime", file="migrated", write=_by(QuantizeRecipe()),
    ),
    Candidate(
        name="… + layers of more than 3 % noise in float32",
        engine="onnxruntime", file="float", write=_by(QuantizeRecipe(noise=_CAREFUL, instead="float")),
    ),
    Candidate(
        name="… + these with 16-bit activations instead",
        engine="onnxruntime", file="careful", write=_by(QuantizeRecipe(noise=_CAREFUL)),
    ),
    Candidate(
        name="ONNX Runtime int8: migration, layers of more than 10 % noise with 16-bit activations",
        engine="onnxruntime", file="int8", write=PASSES["int8"], exported=True,
    ),
    Candidate(
        name="ONNX Runtime int8-any: the same, for every CPU",
        engine="onnxruntime", file="int8-any", write=PASSES["int8-any"], gate="int8-any", exported=True,
    ),
    Candidate(
        name="ONNX Runtime int8-pooled: int8, half of the tokens of sound",
        engine="onnxruntime", file="int8-pooled", write=PASSES["int8-pooled"], gate="int8-pooled", exported=True,
    ),
    Candidate(
        name="… + both encoders in one graph", engine="onnxruntime, one graph", file="int8-any", gate="int8-any",
    ),
    Candidate(
        name="ONNX Runtime MatMulNBits, 8 bits in blocks of 128",
        engine="onnxruntime", file="blocks", write=lambda model, _: quantize_blocks(model),
    ),
    Candidate(
        name="OpenVINO bf16", engine="openvino", file="bf16", write=PASSES["bf16"], computes="bf16", gate="bf16",
        exported=True,
    ),
    Candidate(
        name="OpenVINO int8-static: migration, scales fixed beforehand",
        engine="openvino", file="int8-static", write=PASSES["int8-static"], computes="int8-static",
        gate="int8-static", exported=True,
    ),
)  # fmt: skip
"""All candidates, the reference first."""


def chosen(precisions: Collection[Precision]) -> tuple[Candidate, ...]:
    """Return the reference and the candidates that a bundle can contain in `precisions`; all candidates if empty."""
    if not precisions:
        return CANDIDATES
    return tuple(each for each in CANDIDATES if each.name == REFERENCE or (each.exported and each.gate in precisions))
