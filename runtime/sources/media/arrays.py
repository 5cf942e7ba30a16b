"""Convert decoded frames, of pictures and of sound, to arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.media.decode import SAMPLE_TYPES

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.video.frame import VideoFrame

__all__ = ["PictureConverter", "to_waveform"]

# H, W frame height and width


class PictureConverter:
    """Converts frames to RGB with one scaler, in the calling thread.

    PyAV's `VideoFrame.to_ndarray` creates a scaler per frame, with a thread per core, and `VideoFrame.side_data` keeps
    its frame alive until the garbage collector runs.
    """

    def __init__(self) -> None:
        """Set up nothing before the first frame."""
        self._reformatter: Any = None

    def image_of(self, frame: VideoFrame) -> Callable[[], NDArray[np.uint8]]:
        """Return a function that converts `frame`."""
        return partial(self.to_image, frame)

    def to_image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert to (H, W, 3) uint8 RGB, rotated and mirrored by the recording's metadata. Non-square pixels are kept.

        Raises:
            MediaError: FFmpeg cannot convert it.
        """
        from av.error import FFmpegError
        from av.sidedata.sidedata import SideDataContainer
        from av.video.reformatter import VideoReformatter

        self._reformatter = self._reformatter or VideoReformatter()
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
            image: NDArray[np.uint8] = rgb.to_ndarray()
        except (FFmpegError, ValueError) as error:
            raise MediaError(
                f"a frame of {frame.width} × {frame.height} pixels in format {frame.format.name} cannot be converted "
                f"to RGB ({error}); convert the recording first"
            ) from error
        side_data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
        if side_data is None:
            return image
        # x' = a x + c y, y' = b x + d y in 16.16 fixed point, rows (a, b, u), (c, d, v), (x, y, w)
        a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


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
