"""Windows and texts for comparing encoders: extremes that cameras and microphones produce, and random ones.

Shapes: H, W frame height and width; C channels; n samples of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy import fft
from numpy.random import default_rng

from ovavel.runtime.pipeline.preprocess import FRAME_SIZE
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["random_frame", "random_waveform", "sample_frames", "sample_texts", "sample_waveforms"]

_NAMES = 16
"""How many names of a vocabulary are compared: all take the same path, and there may be thousands."""
_ODD_TEXTS = ("", "a", "Café <|endoftext|> &amp; 🎻 don't", "word " * 100)


def sample_texts(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first `names` of a vocabulary and unusual texts: empty, non-ASCII, too long."""
    return (*names[:_NAMES], *_ODD_TEXTS)


def sample_frames() -> dict[str, NDArray[np.uint8]]:
    """Return frames (H, W, 3) uint8 by name: flat, saturated, noisy, full of edges, and photograph-like."""
    rng = default_rng(0)
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
        "saturated red": np.full((size, size, 3), (255, 0, 0), np.uint8),
        "noise": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "photograph": (128 + 50 * waves + rng.normal(0, 4, (360, 640, 3))).clip(0, 255).astype(np.uint8),
        "checkerboard": np.repeat(squares[..., None], 3, axis=2),
        "stripes": stripes,
    }


def sample_waveforms(rate_hz: int = RATE_HZ) -> dict[str, NDArray[np.float32]]:
    """Return waveforms (C, n) float32 by name: (near) silence, noise, clipping, a click, a fading stereo chirp."""
    rng = default_rng(0)
    time_s = np.arange(rate_hz) / rate_hz
    phase = 2 * np.pi * (200 * time_s + 900 * time_s**2)
    chirp = sum(np.sin(k * phase) / k for k in range(1, 5)) * 0.2 * np.exp(-2 * time_s)
    click = np.zeros(rate_hz)
    click[rate_hz // 2] = 1
    mono = {
        "silence": np.zeros(rate_hz),
        "near silence": rng.choice([-1, 0, 1], rate_hz) / 32768,
        "quiet": 1e-4 * rng.standard_normal(rate_hz),
        "noise": 0.3 * rng.standard_normal(rate_hz),
        "clipping": np.sign(np.sin(2 * np.pi * 440 * time_s)),
        "click": click,
    }
    stereo = np.stack([chirp, 0.3 * rng.standard_normal(rate_hz)])
    return {**{name: wave[None].astype(np.float32) for name, wave in mono.items()}, "chirp": stereo.astype(np.float32)}


def random_frame(seed: int) -> NDArray[np.uint8]:
    """Return a random frame (360, 480, 3) uint8 of smooth gradients and sharp-edged discs."""
    rng = default_rng(seed)
    down, right = np.mgrid[0:360, 0:480].astype(np.float32) / 360
    waves = [np.sin(down[..., None] * rng.normal(0, 8, 3) + right[..., None] * rng.normal(0, 8, 3)) for _ in range(4)]
    picture = rng.uniform(20, 230) + rng.uniform(5, 60) * np.mean(waves, axis=0)
    for _ in range(rng.integers(0, 12)):
        inside = np.hypot(down - rng.uniform(0, 1), right - rng.uniform(0, 1.3)) < rng.uniform(0.02, 0.3)
        picture[inside] = 0.3 * picture[inside] + 0.7 * rng.uniform(0, 255, 3)
    picture += rng.normal(0, rng.uniform(0, 12), picture.shape)
    frame: NDArray[np.uint8] = picture.clip(0, 255).astype(np.uint8)
    return frame


def random_waveform(seed: int, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """Return a random waveform (1, n) float32 of swelling harmonics and coloured noise, at any loudness."""
    rng = default_rng(seed)
    time_s = np.arange(rate_hz) / rate_hz
    pitch = rng.uniform(60, 2000) * (1 + rng.uniform(0, 0.1) * np.sin(2 * np.pi * rng.uniform(1, 8) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    tone = sum(rng.uniform(0, 1) / k * np.sin(k * phase) for k in range(1, 9))
    slope = rng.uniform(0, 1.5)  # 0 is white noise
    spectrum = fft.rfft(rng.standard_normal(rate_hz))
    noise = fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope, rate_hz)
    swell = np.sin(np.pi * rng.uniform(0.5, 6) * time_s + rng.uniform(0, np.pi)) ** 2
    sound = swell * (rng.uniform(0, 1) * tone + rng.uniform(0, 1) * noise / noise.std())
    level = 10 ** rng.uniform(-3, -0.1)
    waveform: NDArray[np.float32] = (level * sound / np.abs(sound).max()).astype(np.float32)
    return waveform[None]
