"""Privacy masks: what they cover is black before anything else sees a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["Masks", "Polygon", "once"]

Polygon = Sequence[tuple[float, float]]
"""Corners (x, y), from (0, 0) at the top left to (1, 1)."""


class Masks:
    """The masks of one camera."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self._polygons = polygons
        self._size: tuple[int, int] = (0, 0)
        self._covered: NDArray[np.bool_] | None = None

    def cover(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 → the same with what is masked in black; `image` itself stays as it is."""
        if not self._polygons:
            return image
        height, width = image.shape[:2]
        if self._covered is None or self._size != (height, width):
            drawn = Image.new("1", (width, height))
            draw = ImageDraw.Draw(drawn)
            for polygon in self._polygons:
                corners = [(x * width, y * height) for x, y in polygon]
                draw.polygon(corners, fill=1, outline=1)
            self._size, self._covered = (height, width), np.array(drawn, np.bool_)
        image = image.copy()
        image[self._covered] = 0
        return image


def once(image: Callable[[], NDArray[np.uint8]], masks: Masks) -> Callable[[], NDArray[np.uint8]]:
    """A frame's picture, masked, converted when it is first asked for and not again."""
    kept: list[NDArray[np.uint8]] = []

    def masked() -> NDArray[np.uint8]:
        if not kept:
            kept.append(masks.cover(image()))
        return kept[0]

    return masked
