"""The sound of a fixed microphone: hiss, mains hum, wind, distant traffic and rain, and what makes itself heard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import groupby

import numpy as np
from numpy import fft
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ovavel.eval.demo.world.plan import Episode
from ovavel.eval.demo.world.sounds import RATE_HZ, reverberate, strokes
from ovavel.eval.demo.world.surroundings import Surroundings

__all__ = ["Microphone"]

# N samples at RATE_HZ

_LOOPS_S = (61, 47, 53, 59)
"""Lengths of the noises. No two have a common factor, so that their sum does not repeat within years."""
_TAIL_S = 1
"""A room is heard for less than this after a sound."""
_KEPT = 8
"""Episodes whose sound is kept, as their seconds are made one after the other."""


class Microphone:
    """Makes the sound of any second of a day by itself."""

    def __init__(self, surroundings: Surroundings, seed: int) -> None:
        self._around = surroundings
        random = default_rng((seed, 6))
        colours = ((20, 7_900, 0.3), (20, 400, 1.6), (50, 900, 1.0), (400, 7_900, 0.2))
        self._hiss, self._wind, self._traffic, self._rain = (
            _loop(length_s, *colour, random) for length_s, colour in zip(_LOOPS_S, colours, strict=True)
        )
        self._hiss_level = random.uniform(0.0012, 0.003)
        self._hum_level = random.uniform(0.0005, 0.002)
        self._episodes: OrderedDict[tuple[int, ...], NDArray[np.float32]] = OrderedDict()

    def second(self, second: int, episodes: Iterable[Episode]) -> NDArray[np.float32]:
        """Make the sound of the second that starts at `second`: (N,) float32 in [-1, 1].

        `episodes` are those that may be heard in it: the ones that hold it, and those that ended just before.
        """
        around = self._around
        sound = self._hiss_level * _part(self._hiss, second)
        for loop, loudness, at in (
            (self._wind, 0.007, around.wind),
            (self._traffic, 0.005, around.traffic),
            (self._rain, 0.005, around.rain),
        ):
            ends = at(second), at(second + 1)
            if any(ends):
                sound += np.linspace(*ends, RATE_HZ, endpoint=False, dtype=np.float32) * loudness * _part(loop, second)
        turns = np.arange(RATE_HZ) * (2 * np.pi * 50 / RATE_HZ)  # whole turns in a second
        sound += self._hum_level * (np.sin(turns) + 0.4 * np.sin(3 * turns))
        for episode in episodes:
            first = (second - episode.first_s) * RATE_HZ
            part = self._of(episode)[max(0, first) : first + RATE_HZ]
            sound[: len(part)] += part
        return sound.clip(-1, 1).astype(np.float32)

    def _of(self, episode: Episode) -> NDArray[np.float32]:
        """Sound of a whole episode and of the room after it."""
        if episode.key not in self._episodes:
            if len(self._episodes) >= _KEPT:
                self._episodes.popitem(last=False)
            self._episodes[episode.key] = _sound(episode)
        return self._episodes[episode.key]


def _sound(episode: Episode) -> NDArray[np.float32]:
    random = default_rng((*episode.key, 1))
    sound = np.zeros((len(episode.script.heard) + _TAIL_S) * RATE_HZ, np.float32)
    start = 0
    for kind, run in groupby(episode.script.heard):
        length = len(list(run))
        if kind:
            part = strokes(kind, length, episode.actor(kind).rate_hz, random)
            sound[start * RATE_HZ : start * RATE_HZ + len(part)] += part
        start += length
    if not sound.any():
        return sound
    sound *= random.uniform(0.2, 0.6)
    return reverberate(sound, random)


def _part(loop: NDArray[np.float32], second: int) -> NDArray[np.float32]:
    start = second * RATE_HZ % len(loop)
    return loop[start : start + RATE_HZ]


def _loop(length_s: int, low_hz: float, high_hz: float, fall: float, random: Generator) -> NDArray[np.float32]:
    """Make noise that repeats without a seam: unit standard deviation, falling as hz to the power of -`fall`."""
    n = length_s * RATE_HZ
    hz = fft.rfftfreq(n, 1 / RATE_HZ)
    spectrum = fft.rfft(random.standard_normal(n)) * np.maximum(hz, low_hz) ** -fall
    loop = fft.irfft(spectrum * ((hz >= low_hz) & (hz <= high_hz)), n)
    loop /= loop.std()
    return loop.astype(np.float32)
