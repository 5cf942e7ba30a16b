"""What a container says of the streams that are read of it."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Track"]


class Track(NamedTuple):
    """One stream, as its header describes it."""

    codec: str
    """FFmpeg's name of it, such as "h264"."""
    size: tuple[int, int] = (0, 0)
    """Width and height of pictures in pixels; zeros where the header does not say."""
    rate_hz: int = 0
    """Samples of sound per second."""
    channels: int = 0
    """Of sound."""

    @classmethod
    def of(cls, stream: Any) -> Track:
        """Describe a stream of an open PyAV container that has a decoder."""
        codec = stream.codec_context
        name = str(codec.codec.canonical_name)
        if stream.type == "video":
            return cls(name, size=(codec.width, codec.height))
        return cls(name, rate_hz=codec.sample_rate or 0, channels=codec.channels or 0)
