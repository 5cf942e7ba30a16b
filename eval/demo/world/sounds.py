"""Sounds of the things in the demo world: mono float32 at 16 kHz.

A sound is a series of strokes, each synthesized from the thing's pitch. Small things have about twice the pitch of
large ones, and quick ones about four times as many strokes per second as slow ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy import fft
from numpy.random import Generator
from numpy.typing import NDArray

from ovavel.eval.demo.world.kinds import Kind

__all__ = ["RATE_HZ", "background_noise", "reverberate", "stroke_rate_hz", "strokes"]

# N samples at RATE_HZ

RATE_HZ = 16_000
Sound = NDArray[np.float32]
Wave = NDArray[np.float64]
Random = Generator


def _time(duration_s: float) -> Wave:
    return np.arange(int(duration_s * RATE_HZ)) / RATE_HZ


def _tone(t: Wave, start_hz: float, end_hz: float | None = None) -> Wave:
    """Return a sine that glides from one frequency to another over the length of `t`."""
    end_hz = start_hz if end_hz is None else end_hz
    hz = np.linspace(start_hz, end_hz, len(t))
    tone: Wave = np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ)
    return tone


def _buzz(t: Wave, start_hz: float, end_hz: float | None = None) -> Wave:
    """Return up to eight harmonics that fall off as 1 / n, all below the Nyquist frequency."""
    end_hz = start_hz if end_hz is None else end_hz
    count = min(8, max(1, int(7_500 / max(start_hz, end_hz))))
    buzz: Wave = np.sum([_tone(t, n * start_hz, n * end_hz) / n for n in range(1, count + 1)], axis=0)
    return buzz


def _noise(n: int, low_hz: float, high_hz: float, random: Random) -> Wave:
    """Return noise of unit standard deviation between two frequencies."""
    spectrum = fft.rfft(random.standard_normal(n))
    hz = fft.rfftfreq(n, 1 / RATE_HZ)
    noise: Wave = fft.irfft(spectrum * ((hz >= low_hz) & (hz <= high_hz)), n)
    noise /= noise.std() + 1e-9
    return noise


def _swell(t: Wave) -> Wave:
    """Return an envelope that rises and falls like half a sine."""
    return np.sin(np.pi * np.arange(len(t)) / max(1, len(t)))


def _bell(hz: float, _period_s: float, _random: Random) -> Wave:
    t = _time(0.7)
    partials = (
        (0.5, 0.4, 2.5),
        (1, 1.0, 4),
        (1.19, 0.6, 5),
        (1.5, 0.4, 6),
        (2.0, 0.7, 6),
        (2.74, 0.5, 9),
        (4.1, 0.3, 14),
    )
    bell: Wave = np.sum([gain * _tone(t, part * hz) * np.exp(-fall * t) for part, gain, fall in partials], axis=0)
    return bell


def _drum(hz: float, _period_s: float, random: Random) -> Wave:
    t = _time(0.22)
    return _tone(t, 1.5 * hz, hz) * np.exp(-14 * t) + 0.25 * _noise(len(t), 200, 6_000, random) * np.exp(-50 * t)


def _siren(hz: float, period_s: float, _random: Random) -> Wave:
    t = _time(period_s)
    glide = hz * (1 + 0.35 * np.sin(2 * np.pi * t / period_s))
    phase = 2 * np.pi * np.cumsum(glide) / RATE_HZ
    return np.sin(phase) + 0.3 * np.sin(3 * phase)


def _bird(hz: float, _period_s: float, _random: Random) -> Wave:
    t = _time(0.06)
    notes = [_tone(t, hz, 1.35 * hz) * _swell(t), np.zeros(240), _tone(t, 1.5 * hz, 1.1 * hz) * _swell(t)]
    return np.concatenate(notes)


def _frog(hz: float, _period_s: float, _random: Random) -> Wave:
    t = _time(0.16)
    return _buzz(t, hz, 1.2 * hz) * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 55 * t))) * _swell(t)


def _clock(hz: float, _period_s: float, random: Random) -> Wave:
    t = _time(0.03)
    return (_tone(t, hz) + 0.8 * _noise(len(t), hz, min(7_900, 3 * hz), random)) * np.exp(-180 * t)


def _engine(hz: float, period_s: float, random: Random) -> Wave:
    t = _time(period_s)
    chug = np.exp(-2.5 * t / period_s)
    return (_buzz(t, hz) + 0.5 * _noise(len(t), 100, 1_200, random)) * chug


def _kettle(hz: float, period_s: float, random: Random) -> Wave:
    t = _time(period_s)
    wobble = 0.65 + 0.35 * np.sin(2 * np.pi * t / period_s)
    return (_tone(t, hz) + 0.35 * _noise(len(t), 3_000, 7_500, random)) * wobble


def _ball(hz: float, period_s: float, _random: Random) -> Wave:
    t = _time(0.09)
    thud = _tone(t, 2.2 * hz, hz) * np.exp(-45 * t)
    row = np.zeros(int(period_s * RATE_HZ) + len(t))
    for share, gain in ((0.0, 1.0), (0.42, 0.7), (0.7, 0.5)):
        start = int(share * period_s * RATE_HZ)
        row[start : start + len(t)] += gain * thud
    return row


def _guitar(hz: float, _period_s: float, random: Random) -> Wave:
    t = _time(0.45)
    strum = np.zeros(len(t))
    for number, part in enumerate((1.0, 1.26, 1.5, 2.0)):
        start = number * 200
        note = sum(
            _tone(t[start:], n * part * hz) * np.exp(-(2 + 2.5 * n) * t[: len(t) - start]) / n**0.7
            for n in range(1, 6)
            if n * part * hz < 7_500
        )
        strum[start:] += note
    return strum + 0.05 * random.standard_normal(len(t)) * np.exp(-60 * t)


def _tap(hz: float, _period_s: float, _random: Random) -> Wave:
    t = _time(0.07)
    return _tone(t, hz, 2.1 * hz) * np.exp(-35 * t) * np.minimum(1, t * 400)


def _boot(hz: float, _period_s: float, random: Random) -> Wave:
    t = _time(0.16)
    crunch = _noise(len(t), 2.5 * hz, 12 * hz, random) * _swell(t) ** 2
    return crunch + 1.2 * _tone(t, 0.6 * hz, 0.4 * hz) * np.exp(-30 * t)


def _dog(hz: float, _period_s: float, random: Random) -> Wave:
    t = _time(0.15)
    return (_buzz(t, 1.3 * hz, 0.8 * hz) + 0.35 * _noise(len(t), 2 * hz, 5 * hz, random)) * _swell(t) ** 0.6


def _saw(hz: float, period_s: float, random: Random) -> Wave:
    t = _time(period_s / 2)
    pull = _noise(len(t), hz, 2.2 * hz, random) * _swell(t)
    push = _noise(len(t), 1.5 * hz, 3.2 * hz, random) * _swell(t)
    return np.concatenate([pull, 0.7 * push])


def _horn(hz: float, period_s: float, _random: Random) -> Wave:
    t = _time(min(0.4, 0.6 * period_s))
    chord = _buzz(t, hz) + _buzz(t, 1.26 * hz)
    chord *= np.minimum(1, np.minimum(t, t[::-1]) * 80)
    return chord


class _Voice(NamedTuple):
    stroke: Callable[[float, float, Random], Wave]
    """Synthesizes one stroke from the pitch and the time until the next."""
    large_hz: float
    """Pitch of a large one."""
    rate: float = 1.0
    """Strokes per second, relative to other things."""


_VOICES: Mapping[str, _Voice] = {
    "bell": _Voice(_bell, 520),
    "drum": _Voice(_drum, 85),
    "siren": _Voice(_siren, 560),
    "bird": _Voice(_bird, 1_900),
    "frog": _Voice(_frog, 230),
    "clock": _Voice(_clock, 1_300, 1.3),
    "engine": _Voice(_engine, 70, 4.0),
    "kettle": _Voice(_kettle, 1_150, 1.5),
    "ball": _Voice(_ball, 95, 0.8),
    "guitar": _Voice(_guitar, 150),
    "tap": _Voice(_tap, 700),
    "boot": _Voice(_boot, 160),
    "dog": _Voice(_dog, 330),
    "saw": _Voice(_saw, 900),
    "horn": _Voice(_horn, 210),
}

_SMALL = 2.0
"""Pitch of a small thing relative to a large one."""
_RATES_HZ = {"slowly": 1.4, "quickly": 5.6}
"""Strokes per second. Even a slow thing strikes in every second, so that each second can be heard."""


def stroke_rate_hz(kind: Kind, random: Random) -> float:
    """Draw the strokes per second of one thing of this kind."""
    return float(_RATES_HZ[kind.speed] * _VOICES[kind.thing].rate * random.uniform(0.87, 1.15))


def strokes(kind: Kind, duration_s: float, rate_hz: float, random: Random) -> Sound:
    """Synthesize one thing of this kind: (N,) float32 with a peak of 1."""
    voice = _VOICES[kind.thing]
    hz = voice.large_hz * (_SMALL if kind.size == "small" else 1.0) * random.uniform(0.86, 1.16)
    n = int(duration_s * RATE_HZ)
    sound = np.zeros(n + 2 * RATE_HZ)
    period_s = 1 / rate_hz
    variants = [voice.stroke(hz * random.uniform(0.985, 1.015), period_s, random) for _ in range(3)]
    place_s = -random.uniform(0, period_s)
    while place_s < duration_s:
        stroke = variants[random.integers(len(variants))] * random.uniform(0.75, 1.0)
        skip = max(0, -int(place_s * RATE_HZ))
        start = max(0, int(place_s * RATE_HZ))
        sound[start : start + max(0, len(stroke) - skip)] += stroke[skip:]
        place_s += period_s * random.uniform(0.96, 1.04)
    sound = sound[:n]
    sound /= np.abs(sound).max() + 1e-9
    return sound.astype(np.float32)


def background_noise(duration_s: float, random: Random) -> Sound:
    """Synthesize hiss or rumble for silent stretches: (N,) float32 of unit standard deviation."""
    n = int(duration_s * RATE_HZ)
    spectrum = fft.rfft(random.standard_normal(n))
    hz = np.maximum(fft.rfftfreq(n, 1 / RATE_HZ), 20)
    noise = fft.irfft(spectrum * hz ** -random.uniform(0.0, 1.2), n)
    noise /= noise.std() + 1e-9
    if random.random() < 0.3:
        noise += random.uniform(0.2, 0.8) * np.sin(2 * np.pi * random.uniform(45, 130) * np.arange(n) / RATE_HZ)
    return noise.astype(np.float32)


def reverberate(sound: Sound, random: Random) -> Sound:
    """Add the reverberation of a room, which decays within a tenth to half a second."""
    decay_s = random.uniform(0.05, 0.35)
    t = _time(1.5 * decay_s)
    room = random.standard_normal(len(t)) * np.exp(-6.9 * t / (1.5 * decay_s)) * random.uniform(0.02, 0.1)
    room[0] = 1.0
    size = 1 << math.ceil(math.log2(len(sound) + len(room)))
    wet = fft.irfft(fft.rfft(sound, size) * fft.rfft(room, size), size)[: len(sound)]
    return wet.astype(np.float32)
