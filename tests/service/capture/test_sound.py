"""Sound for clips: what a microphone records is not cut up where only the times of its blocks jitter."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.runtime.types import Samples
from ovavel.service.capture.ring import Sound
from ovavel.service.capture.sound import SoundEncoder, SoundFormat

RATE_HZ = 16_000
BLOCK = 400
BLOCK_S = BLOCK / RATE_HZ
TOGETHER_S = 0.04
"""What nobody notices."""


def tone(start: int, count: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 1000 * (start + np.arange(count)) / RATE_HZ, dtype=np.float32)[None]


def encoded(errors_s: Sequence[float], *, drift: float = 0.0, hole: tuple[int, float] = (0, 0.0)) -> list[Sound]:
    """A tone whose blocks are stamped that much too late; from block `hole[0]` on `hole[1]` seconds are missing."""
    encoder, sounds = SoundEncoder(microphone=True), list[Sound]()
    for index, error_s in enumerate(errors_s):
        time_s = index * BLOCK_S * (1 + drift) + (hole[1] if index >= hole[0] else 0.0)
        samples = Samples(time_s=time_s + error_s, captured_s=0.0, waveform=tone(index * BLOCK, BLOCK), rate_hz=RATE_HZ)
        sounds += encoder.push(samples)
    assert encoder.format == SoundFormat(RATE_HZ, 1)
    return sounds


def early_s(sounds: Sequence[Sound], ends_s: float) -> float:
    """How far the last block is from where it belongs, beyond what the encoder still has: three blocks at most."""
    found_s = sounds[-1].time_s + sounds[-1].duration_s
    return max(found_s - ends_s, ends_s - found_s - 3 * sounds[-1].duration_s, 0.0)


def decoded(sounds: Sequence[Sound]) -> np.ndarray:
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = RATE_HZ, "mono"
    decoder.extradata = bytes([0x14, 0x08])  # AAC-LC, 16 kHz, one channel
    frames = [frame for sound in sounds for frame in decoder.decode(av.Packet(sound.data))]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.010, 0.025]))
def test_jitter_is_not_heard(seed: int, apart_s: float) -> None:
    """Sound servers stamp blocks in one of two ways, some 25 ms apart.

    Where the first blocks happen to be stamped alike, their sound is moved once: before two seconds have passed.
    """
    errors_s = np.random.default_rng(seed).choice([0.0, apart_s], 800)
    heard = decoded(encoded(errors_s.tolist()))[2 * RATE_HZ : -4096]
    loudness = np.sqrt((heard[: len(heard) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
    assert loudness.min() > 0.9 * loudness.max(), "no hole in the tone"
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    at = round(1000 * len(heard) / RATE_HZ)
    assert (spectrum[at - 8 : at + 9] ** 2).sum() > 0.99 * (spectrum**2).sum(), "and no click"


@pytest.mark.parametrize("drift", [-300e-6, 300e-6])
def test_a_crystal_that_drifts_stays_with_the_pictures(drift: float) -> None:
    count = round(300 / BLOCK_S)
    sounds = encoded(np.random.default_rng(0).normal(0, 0.005, count).tolist(), drift=drift)
    assert early_s(sounds, count * BLOCK_S * (1 + drift)) <= TOGETHER_S


@pytest.mark.parametrize("missing_s", [0.15, 1.0, 5.0])
def test_what_is_missing_leaves_its_time(missing_s: float) -> None:
    sounds = encoded(np.random.default_rng(0).choice([0.0, 0.025], 400).tolist(), hole=(200, missing_s))
    assert early_s(sounds, 400 * BLOCK_S + missing_s) <= TOGETHER_S


def test_times_of_a_stream_are_kept() -> None:
    encoder, sounds = SoundEncoder(), list[Sound]()
    for index in range(100):
        time_s = index * BLOCK_S + (0.05 if index >= 50 else 0.0)
        sounds += encoder.push(Samples(time_s=time_s, captured_s=0.0, waveform=tone(0, BLOCK), rate_hz=RATE_HZ))
    assert early_s(sounds, 100 * BLOCK_S + 0.05) == pytest.approx(0, abs=1e-3)
