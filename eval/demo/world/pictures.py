"""Drawings of the things in the demo world.

A thing is drawn in its own coordinates, x to the right and y down, within the unit circle. A `Pen` maps them to the
picture and holds the position, size and light of the thing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["DRAW", "Pen"]

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


class Pen:
    """Drawing tool that takes the coordinates of one thing."""

    def __init__(
        self,
        picture: Image.Image,
        centre: tuple[float, float],
        radius: float,
        *,
        tilt: float = 0.0,
        mirrored: bool = False,
        tint: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Draw on `picture` around `centre`; a unit is `radius` pixels, `tilt` is in radians, `tint` scales colours."""
        self._draw = ImageDraw.Draw(picture)
        self._centre, self._radius, self._tint = centre, radius, tint
        self._cos, self._sin = math.cos(tilt), math.sin(tilt)
        self._side = -1.0 if mirrored else 1.0

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._to_pixels(points), fill=self._lit(colour))

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """Draw a line; `width` in units."""
        pixels = max(1, round(width * self._radius))
        self._draw.line(self._to_pixels(points), fill=self._lit(colour), width=pixels, joint="curve")

    def ellipse(self, x: float, y: float, wide: float, high: float, colour: Colour, *, turn: float = 0.0) -> None:
        """Fill an ellipse around (x, y) with semi-axes `wide` and `high`, rotated by `turn` radians."""
        cos, sin = math.cos(turn), math.sin(turn)
        angles = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        self.polygon(
            [
                (
                    x + wide * math.cos(a) * cos - high * math.sin(a) * sin,
                    y + wide * math.cos(a) * sin + high * math.sin(a) * cos,
                )
                for a in angles
            ],
            colour,
        )

    def arc(self, radius: float, start: float, end: float, colour: Colour, width: float) -> None:
        """Draw an arc around the thing; angles in radians."""
        angles = np.linspace(start, end, 9)
        self.line([(radius * math.cos(a), radius * math.sin(a)) for a in angles], colour, width)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def _to_pixels(self, points: Points) -> list[tuple[float, float]]:
        return [
            (
                self._centre[0] + self._radius * (self._side * x * self._cos - y * self._sin),
                self._centre[1] + self._radius * (self._side * x * self._sin + y * self._cos),
            )
            for x, y in points
        ]

    def _lit(self, colour: Colour) -> Colour:
        red, green, blue = (min(255, max(0, round(part * tint))) for part, tint in zip(colour, self._tint, strict=True))
        return red, green, blue


# Each function draws one thing in its pose at `swing`, which goes from -1 to 1 and back with every stroke.


def _bell(pen: Pen, swing: float) -> None:
    lean = 0.25 * swing
    pen.polygon(
        [(-0.2 + lean, -0.8), (0.2 + lean, -0.8), (0.45, 0.1), (0.8 - lean, 0.6), (-0.8 - lean, 0.6), (-0.45, 0.1)],
        (235, 190, 40),
    )
    pen.box(-0.85 - lean, 0.55, 0.85 - lean, 0.7, (190, 140, 20))
    pen.ellipse(-0.5 * swing, 0.82, 0.16, 0.16, (110, 80, 20))
    pen.ellipse(lean, -0.88, 0.13, 0.13, (150, 110, 20))


def _drum(pen: Pen, swing: float) -> None:
    pen.box(-0.8, -0.25, 0.8, 0.6, (200, 40, 50))
    pen.ellipse(0, 0.6, 0.8, 0.25, (160, 25, 35))
    pen.ellipse(0, -0.25, 0.8, 0.28, (245, 235, 215))
    for x in (-0.6, -0.2, 0.2, 0.6):
        pen.line([(x, 0.0), (x + 0.2, 0.75)], (240, 220, 120), 0.06)
    pen.line([(-0.85, -0.95), (-0.2, -0.35 + 0.25 * swing)], (120, 75, 30), 0.1)
    pen.line([(0.85, -0.95), (0.2, -0.35 - 0.25 * swing)], (120, 75, 30), 0.1)


def _siren(pen: Pen, swing: float) -> None:
    pen.box(-0.85, 0.5, 0.85, 0.85, (60, 60, 70))
    pen.box(-0.55, -0.3, 0.55, 0.5, (30, 70, 230))
    pen.ellipse(0, -0.3, 0.55, 0.5, (30, 70, 230))
    pen.ellipse(0.35 * swing, -0.1, 0.22, 0.45, (190, 215, 255))


def _bird(pen: Pen, swing: float) -> None:
    pen.ellipse(0, 0.15, 0.62, 0.42, (60, 150, 220), turn=0.3)
    pen.ellipse(0.5, -0.38, 0.3, 0.3, (70, 165, 235))
    pen.polygon([(0.75, -0.5), (1.0, -0.5 - 0.1 * swing), (0.78, -0.35)], (245, 160, 30))
    pen.polygon([(0.75, -0.35), (1.0, -0.3 + 0.1 * swing), (0.74, -0.25)], (225, 140, 20))
    pen.polygon([(-0.5, 0.0), (-1.0, -0.3), (-0.95, 0.15)], (40, 110, 180))
    pen.polygon([(-0.2, 0.1), (0.2, 0.1), (-0.15, -0.35 - 0.3 * swing)], (35, 100, 170))
    pen.ellipse(0.56, -0.45, 0.06, 0.06, (10, 10, 10))
    pen.line([(0.0, 0.55), (0.0, 0.9)], (200, 130, 40), 0.06)
    pen.line([(0.2, 0.5), (0.2, 0.9)], (200, 130, 40), 0.06)


def _frog(pen: Pen, swing: float) -> None:
    pen.ellipse(0, 0.25, 0.75, 0.5, (70, 170, 60))
    pen.ellipse(0, 0.55, 0.4 + 0.12 * swing, 0.3 + 0.08 * swing, (190, 225, 130))
    for side in (-1, 1):
        pen.ellipse(0.8 * side, 0.65, 0.22, 0.2, (50, 140, 45))
        pen.ellipse(0.42 * side, -0.3, 0.24, 0.24, (70, 170, 60))
        pen.ellipse(0.42 * side, -0.32, 0.14, 0.14, (250, 250, 220))
        pen.ellipse(0.42 * side, -0.32, 0.06, 0.1, (10, 10, 10))
    pen.line([(-0.4, 0.1), (0, 0.2), (0.4, 0.1)], (30, 80, 30), 0.06)


def _clock(pen: Pen, swing: float) -> None:
    pen.ellipse(0, 0, 0.85, 0.85, (110, 65, 35))
    pen.ellipse(0, 0, 0.7, 0.7, (250, 248, 240))
    for hour in range(12):
        angle = hour * math.pi / 6
        pen.ellipse(0.58 * math.cos(angle), 0.58 * math.sin(angle), 0.05, 0.05, (20, 20, 20))
    pen.line([(0, 0), (0.12, -0.42)], (20, 20, 20), 0.09)
    angle = 0.6 + 0.35 * swing
    pen.line([(0, 0), (0.6 * math.cos(angle), 0.6 * math.sin(angle))], (200, 30, 30), 0.07)


def _engine(pen: Pen, swing: float) -> None:
    pen.box(-0.8, -0.1, 0.5, 0.7, (95, 105, 120))
    for x in (-0.65, -0.3, 0.05):
        pen.box(x, -0.5 + 0.1 * swing, x + 0.22, -0.1, (150, 160, 175))
    angle = 1.2 * swing
    pen.ellipse(0.6, 0.35, 0.38, 0.38, (50, 55, 65))
    for turn in (0.0, math.pi / 2):
        x, y = 0.36 * math.cos(angle + turn), 0.36 * math.sin(angle + turn)
        pen.line([(0.6 - x, 0.35 - y), (0.6 + x, 0.35 + y)], (200, 205, 215), 0.08)
    pen.box(-1.0, 0.1, -0.8, 0.25, (60, 50, 45))


def _kettle(pen: Pen, swing: float) -> None:
    pen.polygon([(-0.55, -0.3), (0.45, -0.3), (0.7, 0.7), (-0.8, 0.7)], (215, 110, 60))
    pen.ellipse(-0.05, -0.35, 0.42, 0.18, (170, 80, 40))
    pen.polygon([(0.45, 0.3), (0.95, -0.25), (0.8, -0.3), (0.4, 0.0)], (190, 95, 50))
    pen.line([(-0.5, -0.35), (-0.4, -0.85), (0.35, -0.85), (0.4, -0.35)], (50, 40, 40), 0.1)
    for step in range(3):
        pen.ellipse(0.85 + 0.06 * swing * step, -0.5 - 0.2 * step, 0.1, 0.09, (235, 240, 245))


def _ball(pen: Pen, swing: float) -> None:
    y = 0.3 - 0.45 * abs(swing)
    pen.ellipse(0, 0.9, 0.6, 0.1, (40, 40, 45))
    pen.ellipse(0, y, 0.55, 0.55, (250, 120, 20))
    pen.line([(-0.55, y), (0.55, y)], (60, 30, 10), 0.06)
    pen.line([(0, y - 0.55), (0, y + 0.55)], (60, 30, 10), 0.06)


def _guitar(pen: Pen, swing: float) -> None:
    pen.ellipse(-0.35, 0.4, 0.5, 0.45, (165, 95, 40))
    pen.ellipse(0.05, 0.0, 0.36, 0.34, (165, 95, 40))
    pen.ellipse(-0.15, 0.2, 0.17, 0.17, (40, 25, 15))
    pen.line([(0.1, -0.05), (0.85, -0.8)], (90, 50, 25), 0.16)
    pen.box(0.75, -1.0, 0.98, -0.75, (60, 35, 20))
    for shift in (-0.05, 0.05):
        bend = 0.06 * swing
        pen.line([(-0.45 + shift, 0.55), (-0.1 + bend, 0.2), (0.85 + shift, -0.8)], (240, 235, 220), 0.03)


def _tap(pen: Pen, swing: float) -> None:
    pen.box(-0.9, -0.5, 0.3, -0.2, (175, 185, 195))
    pen.box(0.1, -0.5, 0.4, 0.1, (150, 160, 170))
    pen.box(-0.45, -0.85, -0.25, -0.5, (130, 140, 150))
    pen.box(-0.7, -0.95, 0.0, -0.8, (210, 60, 60))
    y = 0.5 + 0.3 * swing
    pen.polygon([(0.25, y - 0.28), (0.4, y), (0.25, y + 0.14), (0.1, y)], (60, 140, 240))
    pen.ellipse(0.25, 0.92, 0.45, 0.07, (90, 165, 245))


def _boot(pen: Pen, swing: float) -> None:
    lift = 0.12 * (1 + swing)
    toe = 0.2 * swing
    pen.polygon(
        [(-0.5, -0.9), (0.1, -0.9), (0.15, 0.1 - lift), (0.85, 0.35 - toe), (0.9, 0.65 - toe), (-0.5, 0.65 - lift)],
        (95, 60, 130),
    )
    pen.polygon([(-0.55, 0.62 - lift), (0.92, 0.62 - toe), (0.92, 0.78 - toe), (-0.55, 0.82 - lift)], (35, 25, 45))
    pen.box(-0.55, -0.95, 0.15, -0.78, (215, 190, 235))


def _dog(pen: Pen, swing: float) -> None:
    pen.ellipse(-0.25, 0.3, 0.6, 0.32, (175, 120, 70))
    for x in (-0.65, -0.4, 0.05, 0.25):
        pen.box(x, 0.4, x + 0.14, 0.9, (150, 100, 55))
    pen.ellipse(0.45, -0.25, 0.36, 0.32, (185, 130, 80))
    pen.polygon([(0.6, -0.25), (1.0, -0.25 - 0.1 * swing), (1.0, -0.1), (0.65, -0.02)], (200, 150, 100))
    pen.polygon([(0.6, 0.0), (0.95, 0.05 + 0.12 * swing), (0.65, 0.12)], (160, 60, 60))
    pen.polygon([(0.2, -0.5), (0.05, 0.05), (0.35, -0.25)], (110, 70, 40))
    pen.ellipse(0.55, -0.35, 0.05, 0.05, (10, 10, 10))
    pen.line([(-0.8, 0.2), (-1.0, -0.2 + 0.2 * swing)], (175, 120, 70), 0.12)


def _saw(pen: Pen, swing: float) -> None:
    x = 0.25 * swing
    pen.box(-0.9, 0.35, 0.9, 0.75, (195, 155, 95))
    pen.polygon([(-0.9 + x, -0.2), (0.45 + x, -0.5), (0.45 + x, 0.15), (-0.9 + x, 0.05)], (205, 215, 225))
    teeth = np.linspace(-0.9, 0.45, 10)
    for left, right in itertools.pairwise(teeth):
        y = 0.05 + 0.1 * (left + 0.9) / 1.35
        pen.polygon([(left + x, y - 0.02), (right + x, y - 0.02), ((left + right) / 2 + x, y + 0.14)], (170, 180, 190))
    pen.box(0.42 + x, -0.6, 0.85 + x, 0.25, (30, 120, 90))


def _horn(pen: Pen, swing: float) -> None:
    flare = 0.05 * swing
    pen.polygon([(-0.2, -0.12), (0.75, -0.65 - flare), (0.75, 0.65 + flare), (-0.2, 0.12)], (205, 205, 60))
    pen.ellipse(0.75, 0, 0.14, 0.65 + flare, (120, 115, 20))
    pen.line([(-0.2, 0), (-0.5, 0)], (150, 150, 50), 0.16)
    pen.ellipse(-0.7, 0, 0.3 - flare, 0.26 + flare, (40, 40, 45))


DRAW: Mapping[str, Callable[[Pen, float], None]] = {
    "bell": _bell,
    "drum": _drum,
    "siren": _siren,
    "bird": _bird,
    "frog": _frog,
    "clock": _clock,
    "engine": _engine,
    "kettle": _kettle,
    "ball": _ball,
    "guitar": _guitar,
    "tap": _tap,
    "boot": _boot,
    "dog": _dog,
    "saw": _saw,
    "horn": _horn,
}
"""Thing → function that draws it with a pen, in its pose at a swing in [-1, 1]."""
