"""A second of sound as a spectrogram: small enough to go with every window."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy import fft
from numpy.typing import NDArray

__all__ = ["BANDS", "COLUMNS", "spectrum_of"]

BANDS, COLUMNS = 64, 50
"""Rows and columns of a second."""
_LENGTH_S = 0.032
_BINS = 257
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 8000.0
_FLOOR_DB, _TOP_DB = -90.0, -10.0
"""Levels, against full scale, that become 0 and 255."""


def spectrum_of(waveform: NDArray[np.float32]) -> bytes:
    """(n,) float32, a second at any rate from 16 kHz on → BANDS × COLUMNS bytes: the level in each fiftieth.

    Row by row, the lowest band first.
    """
    step = len(waveform) // COLUMNS
    length = round(len(waveform) * _LENGTH_S)  # so a bin has the same width at any rate
    padded = np.pad(waveform, (0, length - step))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::step][:COLUMNS]
    spectrum = fft.rfft(frames * np.hanning(length).astype(np.float32), axis=1)[:, :_BINS] / (length / 4)
    power = np.maximum.reduceat(spectrum.real**2 + spectrum.imag**2, _edges(), axis=1)
    level = 10 * np.log10(np.maximum(power, 1e-12)).T
    scaled = np.clip((level - _FLOOR_DB) / (_TOP_DB - _FLOOR_DB), 0, 1) * 255
    return np.ascontiguousarray(scaled.round().astype(np.uint8)).tobytes()


@cache
def _edges() -> NDArray[np.intp]:
    """First bin of each band: narrow ones below, where bins are few, and wider ones above."""
    edges = np.geomspace(_LOWEST_HZ * _LENGTH_S, _HIGHEST_HZ * _LENGTH_S, BANDS + 1)[:-1].astype(np.intp)
    for band in range(1, BANDS):
        edges[band] = max(edges[band], edges[band - 1] + 1)
    return edges
