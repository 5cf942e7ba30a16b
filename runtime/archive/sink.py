"""A sink that writes a session into the archive: what the head makes of each second, once it is final."""

from __future__ import annotations

import time
from datetime import datetime

from ovavel.runtime.archive.contexts import Context, ContextVectors
from ovavel.runtime.archive.layout import ContextSecond
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.backends import Backend
from ovavel.runtime.types import Update

__all__ = ["ArchiveSink"]

_OFF_S = 2
"""The clock of a camera may be this far from the machine's before later seconds are moved."""


class ArchiveSink:
    """Writes the seconds of one session. A second is filed under the second of UTC in which it begins."""

    name = "archive"

    def __init__(
        self, writer: ArchiveWriter, backend: Backend, *, lag: int, start: datetime, live: bool = False
    ) -> None:
        """Write with `writer`, which is closed with this, what the head of `backend` makes of the segments.

        Args:
            writer: of the camera.
            backend: that the session runs.
            lag: of the session.
            start: when its media time began, with a time zone.
            live: follow the machine's clock where the source's own strays from it.
        """
        self._writer, self._live = writer, live
        self._vectors = ContextVectors(backend.head, backend.encoders.sizes, lag=lag)
        self._start_s = int(start.timestamp() // 1)
        self._times: dict[int, int] = {}  # of the segments that are not final

    def open(self, *_: object) -> None:
        """Nothing to prepare."""

    def write(self, update: Update) -> None:
        """Write the seconds that are final now.

        Raises:
            OutputError: they cannot be written.
        """
        if update.segment is None:
            self._keep(self._vectors.flush())
            return
        if self._live and update.window and update.window.captured_s is not None:
            now_s = time.time() - (time.monotonic() - update.window.captured_s) - 1
            if abs(now_s - (self._start_s + update.segment.index)) > _OFF_S:
                self._start_s = int(now_s) - update.segment.index
        self._times[update.segment.index] = self._start_s + update.segment.index
        self._keep(self._vectors.push(update.segment))

    def _keep(self, contexts: list[Context]) -> None:
        for each in contexts:
            at = self._times.pop(each.segment)
            self._writer.write(ContextSecond(utc_s=at, vision=each.vision, audio=each.audio))

    def close(self) -> None:
        """Commit what waits.

        Raises:
            OutputError: it cannot be written.
        """
        self._writer.close()
