"""Verification of exported graphs: PyTorch and ONNX Runtime run on the same inputs and are compared.

A graph in fp32 must match PyTorch up to rounding. In a reduced precision it cannot; its embeddings must point in the
same direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.export.inputs import sense_inputs
from ovavel.export.precision.half import Half, emulated
from ovavel.export.precision.static import Static
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.bundle.manifest import ParityCheck
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Tokenizer
from ovavel.runtime.errors import ExportError, MissingExtraError, PrecisionError
from ovavel.runtime.verification.compare import FURTHEST, compare_embeddings, compare_heads
from ovavel.runtime.verification.requirements import FP32_DIFFERENCE, HEAD_DIFFERENCE, requirement
from ovavel.runtime.verification.samples import sample_texts

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Reference", "check_graph", "check_pooled", "encoder_inputs", "head_inputs", "reference"]

# B batch, T segments, D embedding size, C classes with the background last

_RANDOM_INPUTS = 18
"""Additional inputs for a graph in a reduced precision, whose error depends on the input."""

Arrays: TypeAlias = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Inputs of a graph and PyTorch's outputs for them."""

    graph: Graph
    cases: Mapping[str, tuple[Arrays, Arrays]]
    """Name of each case → its inputs and outputs."""
    learned: bool = False
    """Whether the head has learned how to fuse similarities."""


def encoder_inputs(
    graph: Graph, tokenizer: Tokenizer, names: Sequence[str], encoders: Encoders, precision: Precision = "fp32"
) -> dict[str, Arrays]:
    """Return the inputs on which an encoder is compared, by name.

    In fp32: two single inputs, and all in one batch. In a reduced precision, where a batch may share the scale of its
    activations: every input by itself, and many more of them.
    """
    more = range(0 if precision == "fp32" else _RANDOM_INPUTS)
    inputs: Mapping[str, NDArray[Any]]
    if graph == "vision" or graph == "audio":
        inputs = sense_inputs(graph, encoders, more)
    else:
        texts = sample_texts(names)
        inputs = {repr(text[:20]): tokens for text, tokens in zip(texts, tokenizer.encode(texts), strict=True)}
    cases: dict[str, Arrays] = {name: (array[None],) for name, array in inputs.items()}
    if precision != "fp32":
        return cases
    return {name: cases[name] for name in list(cases)[:2]} | {"all in a batch": (np.stack(list(inputs.values())),)}


def head_inputs(text: TextEmbeddings) -> dict[str, Arrays]:
    """Return the inputs on which the head is compared: several B and T; unrelated, equal and opposed senses; no text.

    Args:
        text: C embeddings of the vocabulary for each sense.
    """
    rng = default_rng(0)
    texts = text.audio, text.vision
    cases: dict[str, Arrays] = {}
    for batch in (1, 3):
        for segments in (1, 2, 10, 13):
            audio, vision = (_unit(rng.standard_normal((batch, segments, size))) for size in text.sizes)
            rows = rng.integers(0, len(text), (batch, segments))
            near = _unit(text.audio[rows] + 0.05 * audio)
            also = near if text.is_shared else _unit(text.vision[rows] + 0.05 * vision)
            place = f"of B = {batch}, T = {segments}"
            cases[f"unrelated senses {place}"] = (audio, vision, *texts)
            cases[f"equal senses {place}"] = (near, also, *texts)
            cases[f"opposed senses {place}"] = (near, -also, *texts)
    # All scores are equal, so that their scaling divides zero by the epsilon alone.
    cases["no text"] = (audio, vision, *(np.zeros((2, size), np.float32) for size in text.sizes))
    return cases


def reference(graph: Graph, module: nn.Module, inputs: Mapping[str, Arrays]) -> Reference:
    """Run `module` in PyTorch on `inputs`."""
    import torch

    cases = {}
    with torch.inference_mode():
        for name, arrays in inputs.items():
            output = module(*(torch.from_numpy(array) for array in arrays))
            outputs = output if isinstance(output, tuple) else (output,)
            cases[name] = (arrays, tuple(tensor.numpy() for tensor in outputs))
    return Reference(graph=graph, cases=cases, learned=getattr(module, "learned", False))


def check_graph(path: Path, expected: Reference, precision: Precision = "fp32") -> ParityCheck:
    """Run the ONNX file `path` with ONNX Runtime on the CPU and compare; half precision is emulated (`half.emulated`).

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: ONNX Runtime refuses the file, or its outputs are not finite, differ by more than the tolerance,
            or, in a reduced precision, have a lower cosine than required.
    """
    method = "ONNX Runtime on the CPU"
    if precision in (*get_args(Half), *get_args(Static)):
        method += f", emulating {precision}"
        with emulated(path) as twin:
            outputs = _run(twin, expected)
    else:
        outputs = _run(path, expected)
    cosines: dict[str, float] = {}
    if expected.graph == "head":
        away, tolerance = _head_differences(expected, outputs), HEAD_DIFFERENCE
    else:
        found = {case: compare_embeddings(outputs[case][0], theirs[0]) for case, (_, theirs) in expected.cases.items()}
        away, tolerance = {case: float(each.away.max()) for case, each in found.items()}, FP32_DIFFERENCE
        cosines = {case: float(each.cosine.min()) for case, each in found.items()}
    required = None if precision == "fp32" else requirement(precision).min_cosine
    worst = max(away, key=lambda case: away[case])
    if required:
        if away[worst] >= FURTHEST:
            raise PrecisionError(
                f"the {expected.graph} graph in {precision} produces non-finite values (for {worst})",
                precision,
                advice=f"If fp32 does not, numbers grow too large for {precision}: export without "
                f"--precision {precision}",
            )
    elif away[worst] > tolerance:
        raise ExportError(
            f"the {expected.graph} graph differs from PyTorch by up to {away[worst]:.2g} (for {worst}), and at most "
            f"{tolerance:.0e} is allowed; nothing was written. Check that the weights are finite and fit this model"
        )
    least = min(cosines, key=lambda case: cosines[case], default=None)
    if required and least and cosines[least] < required:
        raise PrecisionError(
            f"the {expected.graph} graph in {precision} produces an embedding whose cosine with PyTorch's is "
            f"{cosines[least]:.4f} (for {least}), and at least {required} is required",
            precision,
            advice=f"These weights lose too much accuracy: export without --precision {precision}",
        )
    return ParityCheck(
        graph=expected.graph,
        precision=precision,
        method=method,
        cases=sum(len(output[0]) for output in outputs.values()) if cosines else len(outputs),
        max_abs_difference=away[worst],
        min_cosine=cosines[least] if least else None,
        tolerance=None if required else tolerance,
        required_cosine=required,
    )


def check_pooled(pooled: nn.Module, expected: Reference, precision: Precision) -> ParityCheck:
    """Compare an encoder that pools tokens of sound with the full one, both in PyTorch.

    `expected` is of the full one, for sounds that the real preparation has made: pooling is for these alone, which hold
    their second twice. `precision` is the one that needs it.

    Raises:
        PrecisionError: an embedding has a lower cosine than `fp32-pooled` requires.
    """
    required = requirement("fp32-pooled").min_cosine
    ours = reference(expected.graph, pooled, {case: arrays for case, (arrays, _) in expected.cases.items()})
    found = {case: compare_embeddings(ours.cases[case][1][0], expected.cases[case][1][0]) for case in ours.cases}
    worst = min(found, key=lambda case: found[case].cosine.min())
    least = float(found[worst].cosine.min())
    if not least >= required:
        raise PrecisionError(
            f"pooling the tokens of sound gives an embedding whose cosine with the full encoder's is {least:.4f} (for "
            f"{worst}), and at least {required} is required",
            precision,
            advice=f"These weights need all tokens: export without --precision {precision}",
        )
    return ParityCheck(
        graph=expected.graph,
        precision="fp32-pooled",
        method="PyTorch, pooling alone",
        cases=len(found),
        max_abs_difference=max(float(each.away.max()) for each in found.values()),
        min_cosine=least,
        tolerance=None,
        required_cosine=required,
    )


Outputs: TypeAlias = Mapping[str, Sequence[NDArray[Any]]]


def _run(path: Path, expected: Reference) -> Outputs:
    """Run the ONNX file `path` on every input."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", need="Verifying a bundle") from error
    try:
        options = onnxruntime.SessionOptions()
        # Keeps the emulated products: 8-bit ones could saturate on this CPU.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        return {
            case: session.run(None, dict(zip(names, arrays, strict=True)))
            for case, (arrays, _) in expected.cases.items()
        }
    except Exception as error:  # onnxruntime raises many unrelated types
        raise ExportError(f"ONNX Runtime cannot run the {expected.graph} graph: {error}") from error


def _head_differences(expected: Reference, outputs: Outputs) -> dict[str, float]:
    found = {
        case: compare_heads(HeadOutput(*outputs[case]), HeadOutput(*theirs), learned=expected.learned)
        for case, (_, theirs) in expected.cases.items()
    }
    return {case: max(each) for case, each in found.items()}


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return unit
