"""Samples of a decoder as one waveform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.sources.media.decode import SAMPLE_TYPES

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame


__all__ = ["to_waveform"]


def to_waveform(frame: AudioFrame) -> NDArray[np.float32]:
    """(channels, n) float32; whole numbers are scaled to [-1, 1)."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        from av.audio.plane import AudioPlane

        # to_ndarray reads past the end of eight planes or more
        planes: list[Any] = [AudioPlane(frame, index) for index in range(channels)]
        dtype = SAMPLE_TYPES[frame.format.name]
        block: NDArray[Any] = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes])
    else:
        block = frame.to_ndarray().reshape(-1, channels).T
    if block.dtype == np.uint8:
        block = (block.astype(np.float32) - 128) / 128
    elif block.dtype.kind == "i":
        block = block * np.float32(-1 / int(np.iinfo(block.dtype).min))
    return np.ascontiguousarray(block, dtype=np.float32)
