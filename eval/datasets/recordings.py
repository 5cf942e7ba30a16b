"""Windows of a recording, for measurements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import RATE_HZ, Window

__all__ = ["read_windows"]


def read_windows(path: Path, channel: Channel = "auto", *, rate_hz: int = RATE_HZ) -> Iterator[Window]:
    """Decode `path` from its first second to its last.

    `channel` is the one of the sound to listen to, and `rate_hz` the sample rate of the windows.

    Raises:
        MediaError: it cannot be read.
    """
    source = MediaSource(path)
    try:
        assembler = WindowAssembler(source.senses, live=False, rate_hz=rate_hz, channel=channel)
        for chunk in source.chunks():
            yield from assembler.push(chunk)
        yield from assembler.flush()
    finally:
        source.close()
