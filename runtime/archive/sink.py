"""Sinks that write a session into the archive: what the head makes of each second, once it is final."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from ovavel.runtime.archive.contexts import Context, ContextVectors
from ovavel.runtime.archive.layout import ContextSecond
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.backends import Backend
from ovavel.runtime.economy.settings import EconomyPlan
from ovavel.runtime.errors import OutputError, UsageError
from ovavel.runtime.types import WINDOW_S, Update, Window

__all__ = ["ArchiveSink", "LiveArchiveSink"]

_OFF_S = 2
"""The clock of a camera may be this far from the machine's before later seconds are moved."""


class _Economic(Protocol):
    """Of `SessionInfo`, what matters here."""

    @property
    def economy(self) -> EconomyPlan: ...


class ArchiveSink:
    """Writes the seconds of a recording. A second is filed under the second of UTC in which it begins."""

    name = "archive"

    def __init__(self, writer: ArchiveWriter, backend: Backend, *, lag: int, start: datetime) -> None:
        """Write with `writer`, which is closed with this, what the head of `backend` makes of the segments.

        Args:
            writer: of the camera.
            backend: that the session runs.
            lag: of the session.
            start: when its media time began, with a time zone.
        """
        self._writer = writer
        self._vectors = ContextVectors(backend.head, backend.encoders.sizes, lag=lag)
        self._start_s = int(start.timestamp() // 1)
        self._times: dict[int, int] = {}  # of the segments that are not final

    def open(self, info: _Economic, *_: object) -> None:
        """Refuse a session that leaves pictures out.

        Raises:
            UsageError: it does.
        """
        if info.economy.sound:
            raise UsageError(
                "the archive keeps what was seen in every second, and a session with economy "
                f'{info.economy.mode} looks at fewer: give the session Economy(mode=…, every_picture="the archive"), '
                "or no economy"
            )

    def write(self, update: Update) -> None:
        """Write the seconds that are final now.

        Raises:
            OutputError: they cannot be written.
        """
        if update.segment is None:
            self._keep(self._vectors.flush())
            return
        self._times[update.segment.index] = self._begins_s(update.segment.index, update.window)
        self._keep(self._vectors.push(update.segment))

    def _begins_s(self, index: int, window: Window | None) -> int:  # noqa: ARG002 - of use to a live source
        """Unix time at which a second begins."""
        return self._start_s + index

    def _keep(self, contexts: list[Context]) -> None:
        for each in contexts:
            at = self._times.pop(each.segment)
            self._put(ContextSecond(utc_s=at, vision=each.vision, audio=each.audio))

    def _put(self, second: ContextSecond) -> None:
        self._writer.write(second)

    def close(self) -> None:
        """Commit what waits.

        Raises:
            OutputError: it cannot be written.
        """
        self._writer.close()


class LiveArchiveSink(ArchiveSink):
    """Writes the seconds of a live source by this machine's clock, and continues while the disk is full."""

    def __init__(self, writer: ArchiveWriter, backend: Backend, *, lag: int, report: Callable[[str], None]) -> None:
        """As `ArchiveSink`. `report` gets a sentence when seconds cannot be written, and when they can be again."""
        super().__init__(writer, backend, lag=lag, start=datetime.now(UTC))
        self._report, self._placed, self._begun, self._trouble = report, False, False, False
        self._written = 0

    def _begins_s(self, index: int, window: Window | None) -> int:
        """By the machine's clock at the first second, and where the source's own has strayed from that."""
        if window and window.captured_s is not None:
            now_s = time.time() - (time.monotonic() - window.captured_s) - WINDOW_S
            if not self._placed or abs(now_s - (self._start_s + index)) > _OFF_S:
                self._start_s, self._placed = math.floor(now_s) - index, True
        return super()._begins_s(index, window)

    def _put(self, second: ContextSecond) -> None:
        try:
            super()._put(second)
        except OutputError as error:
            if not self._begun:  # there is no place for any second
                raise
            if not self._trouble:
                self._report(f"the archive is not written: {error}")
            self._trouble = True
            return
        if self._trouble and self._writer.written > self._written:
            self._trouble = False
            self._report(f"the archive is written again; it lacks {self._writer.lost} seconds")
        self._begun, self._written = True, self._writer.written

    def close(self) -> None:
        """Commit what waits.

        Raises:
            OutputError: the archive lacks seconds; says how many.
        """
        why = ""
        try:
            super().close()
        except OutputError as error:
            why = f": {error}"
        if self._writer.lost:
            raise OutputError(f"{self._writer.lost} seconds could not be written to the archive{why}")
