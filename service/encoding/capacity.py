"""How many windows a second the encoder manages, measured at the start on made-up media."""

from __future__ import annotations

import statistics
import time

import numpy as np

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.service.encoding.remote import RemoteEncoder

__all__ = ["measure_capacity"]

_SECONDS = 1.0
_FEWEST = 3


def measure_capacity(encoder: RemoteEncoder, encoders: Encoders) -> float:
    """Return windows a second, sent as cameras' windows are: in batches of the size that is fastest here.

    Takes about a second, or three batches where the encoder is slow.

    Raises:
        EncoderLost: the encoder did not survive it.
    """
    batch = max(encoder.ready.info.batch, 1)
    random = np.random.default_rng(0)
    frames, sounds = (
        [random.standard_normal(spec.shape, np.float32) for _ in range(batch)]
        for spec in (encoders.vision, encoders.audio)
    )
    encoder.encode(frames, sounds)
    times: list[float] = []
    while len(times) < _FEWEST or sum(times) < _SECONDS:
        began_s = time.perf_counter()
        encoder.encode(frames, sounds)
        times.append(time.perf_counter() - began_s)
    return batch / statistics.median(times)
