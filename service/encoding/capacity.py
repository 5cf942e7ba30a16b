"""What the encoder manages, measured at the start on made-up media, and how many cameras that is enough for."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable

import numpy as np
from msgspec import Struct
from numpy.random import default_rng

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.types import EconomyMode
from ovavel.service.encoding.remote import RemoteEncoder

__all__ = ["USABLE", "CameraWork", "Fits", "Speeds", "cameras_that_fit", "load", "measure_speeds"]

USABLE = 0.9
"""Share of what the encoder manages alone that is left to it beside decoding and deciding."""
_SECONDS = 0.5
_FEWEST = 3


class Speeds(Struct, frozen=True, kw_only=True):
    """How long the encoder takes, in seconds, for one of a batch of the size that is fastest here."""

    window_s: float
    """Picture and sound, sent together, as without economy."""
    sound_s: float
    """A sound alone."""
    picture_s: float
    """A picture alone."""
    lone_sound_s: float
    """A sound that is in no batch, as in the mode "auto", which asks camera by camera."""
    lone_picture_s: float
    """Likewise a picture."""

    @property
    def windows_per_s(self) -> float:
        """Windows a second, picture and sound."""
        return 1 / self.window_s


class CameraWork(Struct, frozen=True, kw_only=True):
    """What one camera brings to the encoder."""

    mode: EconomyMode
    """The economy that runs."""
    every_s: int
    looked: float
    """Share of its pictures that are encoded, in [0, 1]; 1 as long as too little is known."""


class Fits(Struct, frozen=True, kw_only=True):
    """For how many cameras like those of the site, on average, the encoder is enough."""

    at_present: int
    """At the present saving. Not enough where more of them move and sound."""
    worst: int
    """If everything moves and sounds, so that every picture is encoded."""


def measure_speeds(encoder: RemoteEncoder, encoders: Encoders) -> Speeds:
    """Measure windows, sounds and pictures, sent as those of cameras are.

    Takes about two seconds, or some batches of each where the encoder is slow.

    Raises:
        EncoderLost: the encoder did not survive it.
    """
    batch = max(encoder.ready.info.batch, 1)
    random = default_rng(0)
    frames, sounds = (
        [random.standard_normal(spec.shape, np.float32) for _ in range(batch)]
        for spec in (encoders.vision, encoders.audio)
    )

    def each_s(pictures: int, heard: int) -> float:
        encoder.encode(frames[:pictures], sounds[:heard])
        times: list[float] = []
        while len(times) < _FEWEST or sum(times) < _SECONDS:
            began_s = time.perf_counter()
            encoder.encode(frames[:pictures], sounds[:heard])
            times.append(time.perf_counter() - began_s)
        return statistics.median(times) / max(pictures, heard)

    picture_s, sound_s = each_s(batch, 0), each_s(0, batch)
    return Speeds(
        window_s=each_s(batch, batch),
        sound_s=sound_s,
        picture_s=picture_s,
        lone_sound_s=sound_s if batch == 1 else each_s(0, 1),
        lone_picture_s=picture_s if batch == 1 else each_s(1, 0),
    )


def load(speeds: Speeds, cameras: Iterable[CameraWork]) -> float:
    """Share of the encoder's time that these cameras take; above 1 it cannot keep up."""
    return sum(_cost_s(speeds, camera) / camera.every_s for camera in cameras)


def cameras_that_fit(speeds: Speeds, cameras: Iterable[CameraWork]) -> Fits:
    """For how many cameras like these the encoder is enough, with `USABLE` of its time."""
    present = list(cameras)
    worst = [CameraWork(mode=each.mode, every_s=each.every_s, looked=1.0) for each in present]
    now, most = (math.floor(len(present) * USABLE / load(speeds, each) + 1e-9) for each in (present, worst))
    return Fits(at_present=now, worst=min(now, most))


def _cost_s(speeds: Speeds, camera: CameraWork) -> float:
    if camera.mode == "off":
        return speeds.window_s
    picture_s, sound_s = speeds.picture_s, speeds.sound_s
    if camera.mode == "auto":
        picture_s, sound_s = speeds.lone_picture_s, speeds.lone_sound_s
    # A picture and a sound apart are never counted as less work than both together: that would be noise.
    return sound_s + camera.looked * max(picture_s, speeds.window_s - sound_s)
