"""The picture of a fixed camera: a stage, leaves that sway, rain, light, and what comes into sight.

Shapes: H, W height and width of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ovavel.eval.demo.world.actors import FINE, HEIGHT_PX, WIDTH_PX, Actor, draw_stage
from ovavel.eval.demo.world.pictures import Pen
from ovavel.eval.demo.world.surroundings import MARGIN_PX, Surroundings

__all__ = ["Camera"]

_SPARE_PX = 64
"""How much larger than the picture the noise and the rain are that it is cut from."""
_RAINS = 4
_LEAVES_PX = (88, 72)
_COMMON = 0.6
"""Share of the noise that is the same in all three colours."""


class Camera:
    """Draws any frame of a day by itself."""

    def __init__(self, surroundings: Surroundings, seed: int) -> None:
        self._around, self._seed = surroundings, seed
        random = default_rng((seed, 4))
        self._stage = draw_stage(random, WIDTH_PX + MARGIN_PX[0], HEIGHT_PX + MARGIN_PX[1])
        self._cast = random.uniform(0.92, 1.08, 3).astype(np.float32)
        self._leaves, self._leaf_alpha = _leaves(random)
        # In an upper corner of the square that the encoder sees; it turns with the camera, as if it hung from it.
        edge = (WIDTH_PX - HEIGHT_PX) // 2
        self._leaves_at = int(random.choice([edge, WIDTH_PX - edge - _LEAVES_PX[0]])), int(random.integers(0, 30))
        spare = (HEIGHT_PX + _SPARE_PX, WIDTH_PX + _SPARE_PX)
        own = math.sqrt(1 - _COMMON**2) * random.standard_normal((*spare, 3), dtype=np.float32)
        self._noise = own + np.float32(_COMMON) * random.standard_normal((*spare, 1), dtype=np.float32)
        self._rains = [_rain(spare, random) for _ in range(_RAINS)]
        self._plain: tuple[tuple[int, int], NDArray[np.float32]] | None = None
        self._rows = np.arange(HEIGHT_PX, dtype=np.float32) / HEIGHT_PX

    def frame(self, time_s: float, actors: Sequence[Actor] = ()) -> NDArray[np.uint8]:
        """Draw the frame at `time_s` with `actors` in sight: (224, 288, 3) uint8 RGB."""
        around = self._around
        picture = self._background(time_s)
        if actors:
            self._add(picture, actors, time_s)
        random = default_rng((self._seed, 5, round(1000 * time_s)))
        strength, phase = around.band(time_s)
        band = 1 + strength * np.sin(2 * np.pi * (1.5 * self._rows + phase))
        picture *= (around.light(time_s) * band[:, None, None] * self._cast).astype(np.float32)
        rain = around.rain(time_s)
        if rain:
            falling = self._rains[int(random.integers(_RAINS))]
            picture += np.float32(38 * rain) * _cut(falling, random)[..., None]
        picture += np.float32(around.noise(time_s)) * _cut(self._noise, random)
        return picture.clip(0, 255).astype(np.uint8)

    def _corner(self, time_s: float) -> tuple[int, int]:
        left, top = self._around.offset_px(time_s)
        return round(FINE * left), round(FINE * top)

    def _fine(self, corner: tuple[int, int]) -> Image.Image:
        left, top = corner
        return self._stage.crop((left, top, left + FINE * WIDTH_PX, top + FINE * HEIGHT_PX))

    def _background(self, time_s: float) -> NDArray[np.float32]:
        """The stage with its leaves, (H, W, 3), as it is lit at noon."""
        corner = self._corner(time_s)
        if self._plain is None or self._plain[0] != corner:
            self._plain = corner, np.asarray(self._fine(corner).reduce(FINE), np.float32)
        picture = self._plain[1].copy()
        wide, high = _LEAVES_PX
        left, top = self._leaves_at
        wind, rows = self._around.wind(time_s), np.arange(high)
        sway = np.sin(2 * np.pi * 0.7 * time_s + rows / 11) + 0.5 * np.sin(2 * np.pi * 1.7 * time_s + rows / 5)
        columns = (np.arange(wide) + np.rint(5 * wind * sway)[:, None]).clip(0, wide - 1).astype(np.intp)
        leaves, alpha = self._leaves[rows[:, None], columns], self._leaf_alpha[rows[:, None], columns]
        behind = picture[top : top + high, left : left + wide]
        behind += alpha * (leaves - behind)
        return picture

    def _add(self, picture: NDArray[np.float32], actors: Sequence[Actor], time_s: float) -> None:
        """Draw things before everything else."""
        fine = self._fine(self._corner(time_s))
        plain = np.asarray(fine.reduce(FINE))
        for actor in actors:
            actor.draw(fine, time_s)
        drawn = np.asarray(fine.reduce(FINE))
        changed = (drawn != plain).any(axis=2)
        picture[changed] = drawn[changed]


def _cut(spare: NDArray[np.float32], random: Generator) -> NDArray[np.float32]:
    """Return a place of `spare` that is as large as the picture, mirrored or not."""
    top, left = random.integers(0, _SPARE_PX, 2)
    cut = spare[top : top + HEIGHT_PX, left : left + WIDTH_PX]
    return cut[:, ::-1] if random.random() < 0.5 else cut


def _leaves(random: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a bush: (h, w, 3) colours, and how opaque they are, (h, w, 1) in [0, 1]."""
    wide, high = _LEAVES_PX
    picture = Image.new("RGBA", (FINE * wide, FINE * high), (70, 100, 50, 0))
    middle = FINE * wide / 2, FINE * high / 2
    for _ in range(110):
        x, y = random.normal(0, 0.42, 2).clip(-0.85, 0.85)
        pen = Pen(picture, (middle[0] * (1 + x), middle[1] * (1 + y)), FINE * 7.0, tilt=random.uniform(0, 6.3))
        shade = random.uniform(0.55, 1.15)
        pen.ellipse(0, 0, 1.0, 0.45, (round(75 * shade), round(115 * shade), round(55 * shade)))
    drawn = np.asarray(picture.reduce(FINE), np.float32)
    return drawn[..., :3], drawn[..., 3:] / np.float32(255)


def _rain(size: tuple[int, int], random: Generator) -> NDArray[np.float32]:
    """Draw streaks of rain: brightness in [0, 1]."""
    picture = Image.new("L", (size[1], size[0]))
    pen = ImageDraw.Draw(picture)
    for x, y, length in zip(*(random.uniform(0, end, 140) for end in (size[1], size[0], 14)), strict=True):
        pen.line((x, y, x + 1.5, y + 6 + length), fill=int(random.integers(90, 255)))
    return np.asarray(picture, np.float32) / np.float32(255)
