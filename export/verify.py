"""Runs PyTorch and ONNX Runtime on the same inputs, and says how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.export.graphs import SPECS
from ovavel.runtime.backends import Graph
from ovavel.runtime.errors import ExportError, MissingExtraError
from ovavel.runtime.manifest import ParityCheck
from ovavel.runtime.preprocess import FRAME_SIZE, prepare_frame, prepare_waveform
from ovavel.runtime.types import RATE_HZ
from ovavel.runtime.vocabulary import Tokenizer

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "EMBEDDING_TOLERANCE",
    "HEAD_TOLERANCE",
    "Reference",
    "check_graph",
    "encoder_inputs",
    "head_inputs",
    "reference",
    "sample_frames",
    "sample_waveforms",
]

# B batch, T segments, D embedding size, C classes with the background last

EMBEDDING_TOLERANCE = 2e-5
HEAD_TOLERANCE = 1e-4

_TEXTS = 16
"""How many names of the vocabulary are compared; they take the same way, and a vocabulary may hold thousands."""
_ODD_TEXTS = ("", "a", "Café <|endoftext|> &amp; 🎻 don't", "word " * 100)

Arrays: TypeAlias = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Inputs of a graph and what PyTorch makes of them."""

    graph: Graph
    cases: tuple[tuple[Arrays, Arrays], ...]
    """Inputs and outputs of each call."""


def sample_frames() -> dict[str, NDArray[np.uint8]]:
    """Return frames (H, W, 3) uint8: black, white, noise, one that looks like a photograph, a checkerboard, stripes."""
    rng = np.random.default_rng(0)
    size = FRAME_SIZE
    down, right = np.mgrid[0:360, 0:640].astype(np.float32) / 360
    waves = sum(
        np.sin(down[..., None] * rng.uniform(1, 20, 3) + right[..., None] * rng.uniform(1, 20, 3)) / (k + 1)
        for k in range(6)
    )
    squares = ((np.indices((size, size)) // 8).sum(axis=0) % 2 * 255).astype(np.uint8)
    stripes = np.zeros((270, 480, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    return {
        "black": np.zeros((size, size, 3), np.uint8),
        "white": np.full((size, size, 3), 255, np.uint8),
        "noise": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "photograph": (128 + 50 * waves + rng.normal(0, 4, (360, 640, 3))).clip(0, 255).astype(np.uint8),
        "checkerboard": np.repeat(squares[..., None], 3, axis=2),
        "stripes": stripes,
    }


def sample_waveforms() -> dict[str, NDArray[np.float32]]:
    """Return waveforms (C, 16000) float32: silence, quiet, noise, clipping, a click, and a fading chirp in stereo."""
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    phase = 2 * np.pi * (200 * time_s + 900 * time_s**2)
    chirp = sum(np.sin(k * phase) / k for k in range(1, 5)) * 0.2 * np.exp(-2 * time_s)
    click = np.zeros(RATE_HZ)
    click[8000] = 1
    mono = {
        "silence": np.zeros(RATE_HZ),
        "quiet": 1e-4 * rng.standard_normal(RATE_HZ),
        "noise": 0.3 * rng.standard_normal(RATE_HZ),
        "clipping": np.sign(np.sin(2 * np.pi * 440 * time_s)),
        "click": click,
    }
    stereo = np.stack([chirp, 0.3 * rng.standard_normal(RATE_HZ)])
    return {**{name: wave[None].astype(np.float32) for name, wave in mono.items()}, "chirp": stereo.astype(np.float32)}


def encoder_inputs(graph: Graph, tokenizer: Tokenizer, names: Sequence[str]) -> list[Arrays]:
    """Return what an encoder is compared on: its cases one by one (the first two) and all in one batch."""
    if graph == "vision":
        batch: NDArray[Any] = np.stack([prepare_frame(frame) for frame in sample_frames().values()])
    elif graph == "audio":
        batch = np.stack([prepare_waveform(waveform) for waveform in sample_waveforms().values()])
    else:
        batch = tokenizer.encode([*names[:_TEXTS], *_ODD_TEXTS])
    return [(batch[:1],), (batch[1:2],), (batch,)]


def head_inputs(text: NDArray[np.float32]) -> list[Arrays]:
    """Return what the head is compared on: several B and T, unrelated, equal and opposed senses, and no text at all.

    Args:
        text: (C, D) embeddings of the vocabulary.
    """
    rng = np.random.default_rng(0)
    size = text.shape[1]
    cases: list[Arrays] = []
    for batch in (1, 3):
        for segments in (1, 2, 10, 13):
            audio, vision = (_unit(rng.standard_normal((batch, segments, size))) for _ in range(2))
            near = _unit(text[rng.integers(0, len(text), (batch, segments))] + 0.05 * audio)
            cases += [(audio, vision, text), (near, near, text), (near, -near, text)]
    # Every score is the same, so its scaling divides zero by the epsilon alone.
    cases.append((audio, vision, np.zeros((2, size), np.float32)))
    return cases


def reference(graph: Graph, module: nn.Module, inputs: Sequence[Arrays]) -> Reference:
    """Run `module` in PyTorch on `inputs`."""
    import torch

    cases = []
    with torch.inference_mode():
        for arrays in inputs:
            answer = module(*(torch.from_numpy(array) for array in arrays))
            outputs = answer if isinstance(answer, tuple) else (answer,)
            cases.append((arrays, tuple(output.numpy() for output in outputs)))
    return Reference(graph=graph, cases=tuple(cases))


def check_graph(path: Path, expected: Reference) -> ParityCheck:
    """Run the ONNX file `path` with ONNX Runtime on the CPU and compare.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: ONNX Runtime refuses the file, or its answers are not finite or further away than the tolerance.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", need="Verifying a bundle") from error
    names = list(SPECS[expected.graph].inputs)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers = [session.run(None, dict(zip(names, arrays, strict=True))) for arrays, _ in expected.cases]
    except Exception as error:  # onnxruntime raises many kinds, all of them plain
        raise ExportError(f"ONNX Runtime cannot run the {expected.graph} graph: {error}") from error
    compare = _compare_head if expected.graph == "head" else _compare_embeddings
    check = compare(expected, answers)
    if not check.max_abs_difference <= check.tolerance:  # also where it is NaN
        raise ExportError(
            f"the {expected.graph} graph is up to {check.max_abs_difference:.2g} away from PyTorch, and only "
            f"{check.tolerance:.0e} is allowed; nothing was written. Are the weights finite and for this model?"
        )
    return check


def _compare_embeddings(expected: Reference, answers: Sequence[Sequence[NDArray[Any]]]) -> ParityCheck:
    pairs = [(outputs[0], answer[0]) for (_, outputs), answer in zip(expected.cases, answers, strict=True)]
    cosine = min(float((theirs * ours).sum(axis=-1).min()) for theirs, ours in pairs)
    return ParityCheck(
        graph=expected.graph,
        cases=sum(len(ours) for _, ours in pairs),
        max_abs_difference=max(_difference(theirs, ours) for theirs, ours in pairs),
        min_cosine=cosine,
        tolerance=EMBEDDING_TOLERANCE,
    )


def _compare_head(expected: Reference, answers: Sequence[Sequence[NDArray[Any]]]) -> ParityCheck:
    """Compare the similarities with PyTorch's, and the scores with PyTorch's fusion of the *same* similarities.

    The square root is infinitely steep at 0: where a similarity is 0 but for rounding, the scores of two correct
    programs differ by more than any tolerance worth having.
    """
    import torch

    from ovavel.training.temporal import fuse

    worst = 0.0
    for (_, outputs), answer in zip(expected.cases, answers, strict=True):
        audio, vision, score = answer
        fused = fuse(torch.from_numpy(audio), torch.from_numpy(vision)).numpy()
        pairs = ((outputs[0], audio), (outputs[1], vision), (fused, score))
        worst = max(worst, *(_difference(theirs, ours) for theirs, ours in pairs))
    return ParityCheck(
        graph="head",
        cases=len(answers),
        max_abs_difference=worst,
        min_cosine=None,
        tolerance=HEAD_TOLERANCE,
    )


def _difference(theirs: NDArray[Any], ours: NDArray[Any]) -> float:
    """Return the largest difference, infinite where the shapes differ or a value is not finite."""
    if theirs.shape != ours.shape or not np.isfinite(theirs).all() or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(theirs - ours).max())


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return unit
