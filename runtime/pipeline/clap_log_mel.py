"""The log-mel picture that LAION-CLAP's audio encoder takes (docs/method.md, CLIP and CLAP).

It sees ten seconds at 48 kHz, so one second is repeated ten times. What is repeated gives the same frames again: they
are computed once, and besides them those at the edges.

Shapes: n samples of a second at 48 kHz; F frames that are computed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CLAP_BINS", "CLAP_FRAMES", "CLAP_RATE_HZ", "clap_log_mel"]

CLAP_RATE_HZ = 48_000
CLAP_BINS = 64
CLAP_FRAMES = 1001
"""Of ten seconds, the first and the last centred on their ends."""

_REPEATS = 10
_FFT, _SHIFT = 1024, 480
_PERIOD = CLAP_RATE_HZ // _SHIFT
_EDGE = 2
"""Frames at each end that reach beyond the sound, which is mirrored there."""
_FRAMES_A_PRODUCT = 4
_HIGH_HZ = 14_000.0
_FLOOR = 1e-10


def clap_log_mel(second: NDArray[np.float32]) -> NDArray[np.float32]:
    """(48000,) samples at 48 kHz → (1, 1001, 64) float32, 10 · log10 of the mel energies of ten repetitions."""
    half, whole = _FFT // 2, second.astype(np.float64)  # float32 would lose what lies far below a loud tone
    before, after = whole[half:0:-1], whole[-2 : -half - 2 : -1]
    # Frames 0 to 101 of the repeated sound, and its last two.
    begin = np.concatenate([before, whole, whole[: 2 * half + _EDGE * _SHIFT]])
    end = np.concatenate([whole, whole, after])
    frames = np.concatenate(
        [
            _frames(begin)[: _PERIOD + _EDGE],
            _frames(end[-(_FFT + (_EDGE - 1) * _SHIFT) :]),
        ]
    )
    log_mels = _log_mels(frames)
    picture = np.empty((1, CLAP_FRAMES, CLAP_BINS), np.float32)
    picture[0, :_EDGE] = log_mels[:_EDGE]
    inner = CLAP_FRAMES - 2 * _EDGE
    picture[0, _EDGE:-_EDGE] = log_mels[_EDGE + np.arange(inner) % _PERIOD]
    picture[0, -_EDGE:] = log_mels[-_EDGE:]
    return picture


def _frames(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) → (F, 1024)."""
    return np.lib.stride_tricks.sliding_window_view(samples, _FFT)[::_SHIFT]


def _log_mels(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, 1024) → (F, 64)."""
    spectrum = fft.rfft(frames * _window())
    power = spectrum.real**2 + spectrum.imag**2
    # Small products, as in `preprocess`: larger ones would wake OpenBLAS's threads.
    energies = (power.reshape(-1, _FRAMES_A_PRODUCT, power.shape[1]) @ _mel_bank()).reshape(-1, CLAP_BINS)
    log_mels: NDArray[np.float64] = 10 * np.log10(np.maximum(energies, _FLOOR))
    return log_mels


@cache
def _window() -> NDArray[np.float64]:
    """Periodic Hann window."""
    window: NDArray[np.float64] = np.hanning(_FFT + 1)[:-1]
    return window


@cache
def _mel_bank() -> NDArray[np.float64]:
    """(513, 64) triangles on Slaney's mel scale, each of the same area."""
    corners = _hz(np.linspace(0, _mel(_HIGH_HZ), CLAP_BINS + 2))
    bins = fft.rfftfreq(_FFT, 1 / CLAP_RATE_HZ)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    triangles = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    bank: NDArray[np.float64] = triangles * 2 / (high - low)
    return bank


_KNEE_HZ, _LINEAR_HZ, _OCTAVES = 1000.0, 200 / 3, np.log(6.4) / 27
"""Slaney's scale: linear up to 1 kHz, logarithmic above."""


def _mel(hz: float) -> float:
    """Of a frequency above the knee."""
    return float(_KNEE_HZ / _LINEAR_HZ + np.log(hz / _KNEE_HZ) / _OCTAVES)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _KNEE_HZ / _LINEAR_HZ
    return np.where(mel < knee, _LINEAR_HZ * mel, _KNEE_HZ * np.exp(_OCTAVES * (mel - knee)))
