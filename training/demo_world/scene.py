"""Clips of the demo world: a script of what is seen and heard in each second, and its frames and sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ovavel.training.demo_world.pictures import DRAW, Pen
from ovavel.training.demo_world.sounds import RATE_HZ, background_noise, reverberate, stroke_rate_hz, strokes
from ovavel.training.demo_world.world import Kind

__all__ = ["HEIGHT_PX", "WIDTH_PX", "Scene", "Script", "write_script"]

# T seconds of a clip, N samples at RATE_HZ

WIDTH_PX, HEIGHT_PX = 288, 224
_FINE = 2
"""Scenes are drawn at this multiple of the size and then reduced, for smooth edges."""
_RADIUS_PX = {"small": (24.0, 36.0), "large": (60.0, 86.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens in a clip, second by second. An event is where the same kind is shown and heard."""

    shown: tuple[Kind | None, ...]
    heard: tuple[Kind | None, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for each second whose thing is both seen and heard."""
        return tuple(
            int(shown is not None and shown == heard) for shown, heard in zip(self.shown, self.heard, strict=True)
        )


_DISTRACTORS = (
    ("silent", 0.3),
    ("out of sight", 0.25),
    ("nothing", 0.15),
    ("another is heard", 0.15),
    ("another is seen", 0.15),
)
"""What a stretch without an event contains, with probabilities."""
_WHOLE, _NONE = 0.43, 0.24
"""Shares of clips with the event in every second and in none, close to those of OV-AVEBench."""


def write_script(kind: Kind, others: Sequence[Kind], random: np.random.Generator, seconds: int = 10) -> Script:
    """Make up a clip about `kind`; distractors are drawn from `others`."""
    draw = random.random()
    if draw < _WHOLE:
        labels = [1] * seconds
    elif draw < _WHOLE + _NONE:
        labels = [0] * seconds
    else:
        labels = _partial(random, seconds)
    shown: list[Kind | None] = []
    heard: list[Kind | None] = []
    for label, run in groupby(labels):
        length = len(list(run))
        parts = [length] if label or length < 4 or random.random() < 0.5 else [length // 2, length - length // 2]
        for part in parts:
            content = (
                "event"
                if label
                else str(random.choice([t for t, _ in _DISTRACTORS], p=[share for _, share in _DISTRACTORS]))
            )
            other = _other(kind, others, random)
            shown += [{"out of sight": None, "nothing": None, "another is seen": other}.get(content, kind)] * part
            heard += [{"silent": None, "nothing": None, "another is heard": other}.get(content, kind)] * part
    return Script(shown=tuple(shown), heard=tuple(heard))


def _partial(random: np.random.Generator, seconds: int) -> list[int]:
    """Draw labels with one or two events and at least one second outside them."""
    while True:
        labels = [0] * seconds
        for _ in range(1 + int(random.random() < 0.35)):
            length = int(random.integers(1, seconds - 1))
            start = int(random.integers(0, seconds - length + 1))
            labels[start : start + length] = [1] * length
        if 0 < sum(labels) < seconds:
            return labels


def _other(kind: Kind, others: Sequence[Kind], random: np.random.Generator) -> Kind:
    candidates = [other for other in others if other.thing != kind.thing]
    return candidates[int(random.integers(len(candidates)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Actor:
    """Position and motion of one thing in a clip."""

    centre_px: tuple[float, float]
    radius_px: float
    tilt: float
    mirrored: bool
    tint: tuple[float, float, float]
    rate_hz: float
    phase: float
    drift_px: tuple[float, float]
    """Amplitude of its drift around the centre."""


class Scene:
    """A script on a stage. Background, light, position, scale, room and noise are chosen once per clip."""

    def __init__(self, script: Script, random: np.random.Generator) -> None:
        self.script = script
        kinds = dict.fromkeys(kind for kind in (*script.shown, *script.heard) if kind)
        self._actors: Mapping[Kind, _Actor] = {kind: _actor(kind, random) for kind in kinds}
        self._stage = _stage(random)
        self._gain = random.uniform(0.65, 1.25)
        self._cast = random.uniform(0.88, 1.12, 3)
        self._grain = random.uniform(0.0, 9.0)
        self._blur = random.uniform(0.4, 1.0) if random.random() < 0.25 else 0.0
        self._seed = int(random.integers(2**32))

    def frame(self, time_s: float) -> NDArray[np.uint8]:
        """Draw the frame at `time_s`: (224, 288, 3) uint8 RGB."""
        picture = self._stage.copy()
        kind = self.script.shown[min(int(time_s), len(self.script.shown) - 1)]
        if kind:
            self._draw(picture, kind, time_s)
        picture = picture.reduce(_FINE)
        if self._blur:
            picture = picture.filter(ImageFilter.GaussianBlur(self._blur))
        random = np.random.default_rng((self._seed, round(1000 * time_s)))
        light = np.asarray(picture, np.float32) * (self._gain * self._cast).astype(np.float32)
        light += self._grain * random.standard_normal((HEIGHT_PX, WIDTH_PX, 1), dtype=np.float32)
        return light.clip(0, 255).astype(np.uint8)

    def sound(self) -> NDArray[np.float32]:
        """Render the sound of the whole clip: (N,) float32 in [-1, 1]."""
        random = np.random.default_rng((self._seed, 0))
        seconds = len(self.script.heard)
        sound = np.zeros(seconds * RATE_HZ, np.float32)
        start = 0
        for kind, run in groupby(self.script.heard):
            length = len(list(run))
            if kind:
                rate_hz = self._actors[kind].rate_hz
                self._mix(sound, strokes(kind, length, rate_hz, random), start, random)
            start += length
        if random.random() < 0.7:
            sound = reverberate(sound, random)
        sound += random.uniform(0.004, 0.03) * background_noise(seconds, random)
        sound *= random.uniform(0.15, 0.9) / max(1.0, float(np.abs(sound).max()))
        return sound.clip(-1, 1)

    def _mix(
        self, sound: NDArray[np.float32], part: NDArray[np.float32], start: int, random: np.random.Generator
    ) -> None:
        """Add `part` at second `start`; ends that lie inside the clip are moved a little inwards."""
        late = int(random.uniform(0, 0.15) * RATE_HZ) if start else 0
        early = int(random.uniform(0, 0.15) * RATE_HZ) if start * RATE_HZ + len(part) < len(sound) else 0
        part = part * np.float32(random.uniform(0.5, 1.0))
        part[:late] = 0
        part[len(part) - early :] = 0
        sound[start * RATE_HZ : start * RATE_HZ + len(part)] += part

    def _draw(self, picture: Image.Image, kind: Kind, time_s: float) -> None:
        actor = self._actors[kind]
        swing = math.sin(2 * math.pi * actor.rate_hz * time_s + actor.phase)
        shift = math.sin(0.8 * time_s + actor.phase)
        centre = tuple(_FINE * (c + d * shift) for c, d in zip(actor.centre_px, actor.drift_px, strict=True))
        radius = _FINE * actor.radius_px
        pen = Pen(picture, (centre[0], centre[1]), radius, tilt=actor.tilt, mirrored=actor.mirrored, tint=actor.tint)
        DRAW[kind.thing](pen, swing)
        # Quick things get motion lines on both sides, as in comics: a still frame shows no speed.
        if kind.speed == "quickly":
            width = max(0.05, 2.5 * _FINE / radius)
            for number in range(3):
                reach = 1.12 + number * max(0.15, 6.5 * _FINE / radius)
                for side in (0.0, math.pi):
                    pen.arc(reach, side - 0.55, side + 0.55, (255, 255, 255), width)


def _actor(kind: Kind, random: np.random.Generator) -> _Actor:
    radius = random.uniform(*_RADIUS_PX[kind.size])
    left, top = (WIDTH_PX - HEIGHT_PX) / 2 + 1.05 * radius, 1.05 * radius
    gain = random.uniform(0.8, 1.15)
    return _Actor(
        centre_px=(random.uniform(left, WIDTH_PX - left), random.uniform(top, HEIGHT_PX - top)),
        radius_px=radius,
        tilt=random.uniform(-0.3, 0.3),
        mirrored=bool(random.random() < 0.5),
        tint=tuple(gain * random.uniform(0.85, 1.15) for _ in range(3)),  # type: ignore[arg-type]
        rate_hz=stroke_rate_hz(kind, random),
        phase=random.uniform(0, 2 * math.pi),
        drift_px=(random.uniform(-6, 6), random.uniform(-4, 4)),
    )


def _stage(random: np.random.Generator) -> Image.Image:
    """Draw a wall, a floor and silent objects, at the fine size."""
    size = WIDTH_PX * _FINE, HEIGHT_PX * _FINE
    wall, floor = random.uniform(20, 190, 3), random.uniform(20, 170, 3)
    rows = np.linspace(0, 1, 16)[:, None, None]
    horizon = random.uniform(0.55, 0.85)
    coarse = np.where(rows < horizon, wall * (0.75 + 0.4 * rows), floor * (1.25 - 0.4 * rows)) * np.ones((1, 20, 1))
    coarse = coarse + random.uniform(2, 16) * random.standard_normal((16, 20, 1))
    stage = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(stage)
    for _ in range(int(random.integers(0, 6))):
        x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
        w, h = random.uniform(10, 110, 2)
        colour = tuple(int(c) for c in np.clip(wall + random.uniform(-60, 60, 3), 0, 255))
        if random.random() < 0.5:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=colour)
        else:
            draw.polygon([(x - w, y + h), (x, y - h), (x + w, y + h)], fill=colour)
    return stage
