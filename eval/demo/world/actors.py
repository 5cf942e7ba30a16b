"""Things on a stage: their place, size and motion in the picture, and the wall, floor and objects behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from ovavel.eval.demo.world.kinds import Kind
from ovavel.eval.demo.world.pictures import DRAW, Pen
from ovavel.eval.demo.world.sounds import stroke_rate_hz

__all__ = ["FINE", "HEIGHT_PX", "WIDTH_PX", "Actor", "draw_stage"]

WIDTH_PX, HEIGHT_PX = 288, 224
FINE = 2
"""Pictures are drawn at this multiple of the size and then reduced, for smooth edges."""
_RADIUS_PX = {"small": (24.0, 36.0), "large": (60.0, 86.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Position and motion of one thing in the picture."""

    kind: Kind
    centre_px: tuple[float, float]
    radius_px: float
    tilt: float
    mirrored: bool
    tint: tuple[float, float, float]
    rate_hz: float
    """Strokes per second, which are seen and heard."""
    phase: float
    drift_px: tuple[float, float]
    """Amplitude of its drift around the centre."""

    @classmethod
    def of(cls, kind: Kind, random: Generator) -> Actor:
        """Draw one of this kind, whole inside the square that the encoder sees."""
        radius = random.uniform(*_RADIUS_PX[kind.size])
        left, top = (WIDTH_PX - HEIGHT_PX) / 2 + 1.05 * radius, 1.05 * radius
        gain = random.uniform(0.8, 1.15)
        return cls(
            kind=kind,
            centre_px=(random.uniform(left, WIDTH_PX - left), random.uniform(top, HEIGHT_PX - top)),
            radius_px=radius,
            tilt=random.uniform(-0.3, 0.3),
            mirrored=bool(random.random() < 0.5),
            tint=tuple(gain * random.uniform(0.85, 1.15) for _ in range(3)),  # type: ignore[arg-type]
            rate_hz=stroke_rate_hz(kind, random),
            phase=random.uniform(0, 2 * math.pi),
            drift_px=(random.uniform(-6, 6), random.uniform(-4, 4)),
        )

    def draw(self, picture: Image.Image, time_s: float) -> None:
        """Draw it on `picture`, which is `FINE` times as large, as it stands at `time_s`."""
        swing = math.sin(2 * math.pi * self.rate_hz * time_s + self.phase)
        shift = math.sin(0.8 * time_s + self.phase)
        centre = tuple(FINE * (c + d * shift) for c, d in zip(self.centre_px, self.drift_px, strict=True))
        radius = FINE * self.radius_px
        pen = Pen(picture, (centre[0], centre[1]), radius, tilt=self.tilt, mirrored=self.mirrored, tint=self.tint)
        DRAW[self.kind.thing](pen, swing)
        # Quick things get motion lines on both sides, as in comics: a still frame shows no speed.
        if self.kind.speed == "quickly":
            width = max(0.05, 2.5 * FINE / radius)
            for number in range(3):
                reach = 1.12 + number * max(0.15, 6.5 * FINE / radius)
                for side in (0.0, math.pi):
                    pen.arc(reach, side - 0.55, side + 0.55, (255, 255, 255), width)


def draw_stage(random: Generator, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Image.Image:
    """Draw a wall, a floor and silent objects, at the fine size."""
    size = width_px * FINE, height_px * FINE
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
