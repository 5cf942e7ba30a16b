"""A live source never ends by itself: this ends it, so that a failing test ends too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ovavel.runtime.sources import Source
from ovavel.runtime.types import Chunk


def closed_after(source: Source, seconds: float) -> Iterator[Chunk]:
    """The chunks of `source`, which is closed after `seconds` at the latest."""
    timer = threading.Timer(seconds, source.close)
    timer.start()
    try:
        yield from source.chunks()
    finally:
        timer.cancel()
        source.close()
