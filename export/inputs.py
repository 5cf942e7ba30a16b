"""Inputs for comparing encoders and for calibrating quantization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.pipeline.preprocess import find_preparation
from ovavel.runtime.verification.samples import random_frame, random_waveform, sample_frames, sample_waveforms

__all__ = ["SENSES", "Sense", "calibration_inputs", "sense_inputs"]

Sense = Literal["vision", "audio"]
SENSES: tuple[Sense, ...] = ("vision", "audio")

_CALIBRATION_SEEDS = range(1000, 1010)
"""Disjoint from the seeds used in comparisons."""


def sense_inputs(sense: Graph, encoders: Encoders, seeds: Iterable[int] = ()) -> dict[str, NDArray[np.float32]]:
    """Return inputs by name, prepared as `encoders` take them: extreme ones, and a random one per seed.

    Raises:
        KeyError: `sense` is not in `SENSES`.
        BundleError: the encoder wants a preprocessing that this ovavel does not do.
    """
    if sense not in SENSES:
        raise KeyError(sense)
    if sense == "vision":
        frames = sample_frames() | {f"random frame {seed}": random_frame(seed) for seed in seeds}
        prepare = find_preparation("vision", encoders.vision).prepare
        return {name: prepare(frame) for name, frame in frames.items()}
    sound = find_preparation("audio", encoders.audio)
    randoms = {f"random waveform {seed}": random_waveform(seed, sound.rate_hz) for seed in seeds}
    waveforms = sample_waveforms(sound.rate_hz) | randoms
    return {name: sound.prepare(waveform) for name, waveform in waveforms.items()}


def calibration_inputs(sense: Graph, encoders: Encoders) -> list[NDArray[np.float32]]:
    """Return batches of one input for calibrating quantization."""
    return [prepared[None] for prepared in sense_inputs(sense, encoders, _CALIBRATION_SEEDS).values()]
