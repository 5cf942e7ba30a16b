"""Small pictures of what was seen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["thumbnail"]

_SIZE = (160, 160)
_QUALITY = 70


def thumbnail(frame: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB → a JPEG of 160 pixels at most in either direction."""
    image = Image.fromarray(frame)
    image.thumbnail(_SIZE, Image.Resampling.BILINEAR, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
