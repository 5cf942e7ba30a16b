"""What does not stand out of the noise of a microphone, and what does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ovavel.runtime.economy.quiet import BANDS, LEAST_LEARNT, NoiseFloor, band_levels


def noise(seed: int, rate_hz: int = 16_000) -> NDArray[np.float32]:
    """The hiss and the hum of a microphone."""
    rng, t = np.random.default_rng(seed), np.arange(rate_hz) / rate_hz
    return (0.01 * rng.standard_normal(rate_hz) + 0.02 * np.sin(2 * np.pi * 100 * t))[None].astype(np.float32)


def tone(level: float, frequency_hz: float = 1000.0) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(16_000) / 16_000)).astype(np.float32)


def learnt(seconds: int) -> NoiseFloor:
    floor = NoiseFloor()
    for seed in range(seconds):
        floor.learn(band_levels(noise(seed)))
    return floor


def test_noise_is_nothing_to_hear_once_it_is_known() -> None:
    assert not learnt(LEAST_LEARNT - 1).is_quiet(band_levels(noise(999)))
    floor = learnt(LEAST_LEARNT)
    assert sum(floor.is_quiet(band_levels(noise(seed))) for seed in range(1000, 1100)) > 80


@pytest.mark.parametrize("frequency_hz", [200.0, 1000.0, 5000.0])
def test_a_tone_below_the_level_of_the_noise_is_something_to_hear(frequency_hz: float) -> None:
    sound = noise(999)
    assert np.abs(tone(0.003)).max() < np.abs(sound).max() / 10
    assert not learnt(LEAST_LEARNT).is_quiet(band_levels(sound + tone(0.003, frequency_hz)))


def test_digital_silence_is_nothing_to_hear() -> None:
    floor, silence = NoiseFloor(), np.zeros((2, 48_000), np.float32)
    assert band_levels(silence).shape == (BANDS,)
    for _ in range(LEAST_LEARNT):
        floor.learn(band_levels(silence))
    assert floor.is_quiet(band_levels(silence))
    assert not floor.is_quiet(band_levels(noise(0, 48_000)))


def test_distrust_makes_it_harder_to_be_noise() -> None:
    floor = learnt(LEAST_LEARNT)
    for _ in range(10):
        floor.distrust()
    assert sum(floor.is_quiet(band_levels(noise(seed))) for seed in range(1000, 1100)) < 10
