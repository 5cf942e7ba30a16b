"""How large the pictures of a stream may be."""

from __future__ import annotations

import io
import warnings
from typing import Any

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.access import padded

__all__ = ["PixelLimit"]

_STILLS = {
    **dict.fromkeys(("png", "apng"), "PNG"),
    "bmp": "BMP",
    "gif": "GIF",
    "jpeg2000": "JPEG2000",
    "mjpeg": "JPEG",
    "targa": "TGA",
    "tiff": "TIFF",
    "webp": "WEBP",
}
"""Pillow's names of FFmpeg's codecs of single pictures."""


class PixelLimit:
    """Refuses pictures of more than so many pixels: by the container's header, or else by that of the first picture.

    Those that come later are left to the decoder, to which they are damaged. Memory stays small: FFmpeg forgets the
    size of a picture that is larger than it may look at, so Pillow reads it, without decoding.
    """

    def __init__(self, codec: Any, most: int, name: str) -> None:
        """Limit the decoder `codec` of the recording or stream called `name`.

        Raises:
            MediaError: the container says that they have more.
        """
        self._codec, self._most, self._name = codec, most, name
        self._known = bool(codec.width) or not (codec.codec.intra_only or codec.name in _STILLS)
        self._check(codec.width * codec.height, _size(codec))
        codec.options = {**codec.options, "max_pixels": str(padded(most))}

    def before(self, packet: Any) -> None:
        """Look at a packet that is to be decoded, as long as no size is known. Raises MediaError."""
        if self._known or not packet.size:
            return
        pixels = self._codec.width * self._codec.height
        if pixels:
            self._check(pixels, _size(self._codec))
        else:
            pixels, size = _by_header(self._codec.name, bytes(packet))
            self._check(pixels, size)
        self._known = pixels > 0

    def finish(self) -> None:
        """All that was sent was decoded. Raises MediaError if a size never became known."""
        if not self._known:
            self._check(self._codec.width * self._codec.height, _size(self._codec))
            self._known = True
            if not self._codec.width:
                self._refuse("are damaged or too large: no size can be read")

    def _check(self, pixels: int, size: str) -> None:
        if pixels > self._most:
            self._refuse(f"are too large: they have {size} pixels")

    def _refuse(self, why: str) -> None:
        raise MediaError(
            f"{self._name} cannot be used: its pictures {why}, and {self._most} pixels are allowed; "
            "make it smaller, or raise the limit with --max-pixels or OVAVEL_MAX_PIXELS"
        )


def _size(picture: Any) -> str:
    return f"{picture.width} × {picture.height}"


def _by_header(codec: str, data: bytes) -> tuple[int, str]:
    """How many pixels the picture `data` has by its own header, and its size in words; 0 where that cannot be read."""
    from PIL import Image

    if codec not in _STILLS:
        return 0, ""
    Image.init()
    read, _ = Image.OPEN[_STILLS[codec]]  # Image.open refuses large pictures before it says how large they are
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = read(io.BytesIO(data), "")
            return picture.width * picture.height, _size(picture)
    except Image.DecompressionBombError:  # so does WebP's own reader
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return most + 1, f"more than {most}"
    except Exception:  # noqa: BLE001 - what it raises for odd data depends on the format
        return 0, ""
