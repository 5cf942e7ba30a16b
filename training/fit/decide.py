"""Lets a head decide on whole splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ovavel.eval.accuracy.protocols import Rows, fused_labels, score_rows
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head as RuntimeHead
from ovavel.training.fit.data import Part
from ovavel.training.heads.base import Head
from ovavel.training.heads.temporal import HeadGraph

__all__ = ["decide_labels", "evaluate", "runtime_head"]

_EVALUATION_BATCH = 64  # clips
_LEARNED_BATCH = 16  # of a head that fuses with many channels for each class: they should fit into a CPU's cache


def decide_labels(head: Head, part: Part, text: TextEmbeddings, *, background: bool = True) -> NDArray[np.intp]:
    """Return the decisions (N, T) of `head` on the clips of `part` against the embeddings (C, D) of all names.

    Without `background`, the last name is excluded.
    """
    names = text if background else text[:-1]
    return np.concatenate([fused_labels(output.score, len(text) - 1) for output in _decide(head, part, names)])


def evaluate(head: Head, part: Part, text: TextEmbeddings, *, background: bool = True) -> Rows:
    """Score the decisions of `decide_labels`."""
    labels = decide_labels(head, part, text, background=background)
    return score_rows(labels, part.truth, part.seen, len(text))


def runtime_head(head: Head) -> RuntimeHead:
    """Return `head` in the form that the runtime asks for, on the device where its weights are."""
    graph, device = HeadGraph(head).eval(), _device_of(head)

    def run(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        with torch.inference_mode():
            inputs = (torch.tensor(each, device=device) for each in (audio, vision, text.audio, text.vision))
            return HeadOutput(*(tensor.cpu().numpy() for tensor in graph(*inputs)))

    return run


def _device_of(head: Head) -> torch.device:
    return next(iter(head.state_dict().values()), torch.zeros(0)).device


def _decide(head: Head, part: Part, text: TextEmbeddings) -> Iterator[HeadOutput]:
    """Yield decisions for a few clips at a time, to limit memory."""
    graph = HeadGraph(head).eval()
    device = _device_of(head)
    with torch.inference_mode():
        names = [torch.tensor(each, device=device) for each in (text.audio, text.vision)]
        size = _LEARNED_BATCH if graph.learned else _EVALUATION_BATCH
        for start in range(0, len(part), size):
            audio, vision = (torch.tensor(x[start : start + size], device=device) for x in (part.audio, part.vision))
            yield HeadOutput(*(tensor.cpu().numpy() for tensor in graph(audio, vision, *names)))
