"""Inputs for comparing encoders and for calibrating quantization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.pipeline.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.verification.samples import random_frame, random_waveform, sample_frames, sample_waveforms

__all__ = ["SENSES", "Sense", "calibration_inputs", "sense_inputs"]

Sense = Literal["vision", "audio"]
SENSES: tuple[Sense, ...] = ("vision", "audio")

_CALIBRATION_SEEDS = range(1000, 1010)
"""Disjoint from the seeds used in comparisons."""


def sense_inputs(sense: Graph, seeds: Iterable[int] = ()) -> dict[str, NDArray[np.float32]]:
    """Return prepared inputs by name, (3, 224, 224) or (1, 128, 204): extreme ones, and a random one per seed.

    Raises:
        KeyError: `sense` is not in `SENSES`.
    """
    if sense not in SENSES:
        raise KeyError(sense)
    if sense == "vision":
        frames = sample_frames() | {f"random frame {seed}": random_frame(seed) for seed in seeds}
        return {name: prepare_frame(frame) for name, frame in frames.items()}
    waveforms = sample_waveforms() | {f"random waveform {seed}": random_waveform(seed) for seed in seeds}
    return {name: prepare_waveform(waveform) for name, waveform in waveforms.items()}


def calibration_inputs(sense: Graph) -> list[NDArray[np.float32]]:
    """Return batches of one input for calibrating quantization."""
    return [prepared[None] for prepared in sense_inputs(sense, _CALIBRATION_SEEDS).values()]
