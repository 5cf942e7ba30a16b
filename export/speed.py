"""Interleaved speed measurement of encoder variants on this CPU, to select what a bundle keeps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from ovavel.runtime.backends.onnxruntime.sessions import open_session
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.system.hardware import physical_cores

__all__ = ["EQUALLY_FAST", "fastest", "times_faster"]

EQUALLY_FAST = 0.95
"""Speed ratios between this and 1 are noise."""
_TURNS = 5
_WARM_UP = 1


def times_faster(forms: Mapping[str, Iterable[Path]]) -> dict[str, float]:
    """Run windows through `forms` alternately; return how many times faster than the first each of them is.

    Args:
        forms: name → the files of its encoders.

    Returns:
        Name → median of the pairwise ratios; 1 for the first.
    """
    opened = {
        form: [open_session(read_graph(path), None, physical_cores()) for path in files]
        for form, files in forms.items()
    }
    sessions = {
        form: [(each, (1, *each.get_inputs()[0].shape[1:])) for each in found] for form, found in opened.items()
    }
    shapes = sorted({shape for encoders in sessions.values() for _, shape in encoders})
    taken_s: dict[str, list[float]] = {form: [] for form in forms}
    random = default_rng(0)
    for _ in range(_WARM_UP + _TURNS):
        inputs = {shape: random.standard_normal(shape).astype(np.float32) for shape in shapes}
        for form, encoders in sessions.items():
            start_s = time.perf_counter()
            for session, shape in encoders:
                session.run(None, {session.get_inputs()[0].name: inputs[shape]})
            taken_s[form].append(time.perf_counter() - start_s)
    reference, *_ = taken_s.values()
    return {form: float(np.median(np.divide(reference[_WARM_UP:], each[_WARM_UP:]))) for form, each in taken_s.items()}


def fastest(forms: Sequence[str], speeds: Mapping[str, float]) -> str:
    """Return the fastest of `forms`; among those equally fast within noise, the first."""
    best = max(speeds[form] for form in forms)
    return next(form for form in forms if speeds[form] >= EQUALLY_FAST * best)
