"""Spectra of seconds → a picture of what was heard: time to the right, pitch upwards."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ovavel.service.capture.spectrum import BANDS, COLUMNS

__all__ = ["spectrogram"]

_COLOURS = np.array([(0, 0, 4), (60, 15, 110), (160, 45, 110), (235, 105, 55), (252, 190, 60), (252, 255, 190)], float)
"""From silence to full scale: lightness rises evenly, for eyes that see no colours, too."""
_UNHEARD = 96
"""Grey of seconds in which nothing was heard."""
_WIDTH, _HEIGHT = 160, 256
"""Pixels of a second."""


def spectrogram(seconds: Sequence[bytes | None]) -> bytes:
    """What `spectrum_of` gave for each second, None where nothing was heard → WebP."""
    positions = np.linspace(0, 255, len(_COLOURS))
    table = np.stack([np.interp(np.arange(256), positions, channel) for channel in _COLOURS.T], axis=1)
    parts = []
    for second in seconds:
        if second is None:
            parts.append(np.full((BANDS, COLUMNS, 3), _UNHEARD, np.uint8))
        else:
            levels = np.frombuffer(second, np.uint8).reshape(BANDS, COLUMNS)[::-1]
            parts.append(table[levels].round().astype(np.uint8))
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    out = io.BytesIO()
    picture.resize((_WIDTH * len(parts), _HEIGHT), Image.Resampling.BILINEAR).save(out, "WEBP", quality=80)
    return out.getvalue()
