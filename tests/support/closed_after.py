"""A live source never ends by itself: this ends it, so that a failing test ends too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from ovavel.runtime.sources import Source
from ovavel.runtime.types import Chunk, Notice


def closed_after(
    source: Source, seconds: float, report: Callable[[str], object] = lambda message: None
) -> Iterator[Chunk]:
    """The chunks of `source`, which is closed after `seconds` at the latest. Its notices go to `report` instead."""
    timer = threading.Timer(seconds, source.close)
    timer.start()
    try:
        for chunk in source.chunks():
            if isinstance(chunk, Notice):
                report(chunk.message)
            else:
                yield chunk
    finally:
        timer.cancel()
        source.close()
