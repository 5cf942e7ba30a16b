"""News as JSON Lines: one record a line, each on disk before the next one is made.

The records are described in `ovavel.runtime.records`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ovavel.runtime.errors import OutputError
from ovavel.runtime.files import output_error
from ovavel.runtime.records import (
    EventRecord,
    GapRecord,
    Latency,
    Record,
    SegmentRecord,
    SessionRecord,
    StatusRecord,
    SummaryRecord,
    event_fields,
    gap_record,
    segment_fields,
    to_json_bytes,
)
from ovavel.runtime.sinks import SessionInfo
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import SegmentScores, Update
from ovavel.runtime.wording import encodable

__all__ = ["JsonlSink"]

_TOP = 5
_STDOUT = 1


def _to_stderr(message: str) -> None:
    print(f"ovavel: {message}", file=sys.stderr, flush=True)


class JsonlSink:
    """Appends one JSON object a line to a file, with one system call each: a kill loses nothing that was told.

    A disk that is full does not end the session: up to `backlog` records wait in memory, each write tries again, and
    `close` raises an `OutputError` that counts what is missing. `BrokenPipeError` passes through.
    """

    def __init__(
        self, path: Path | str, *, listener: Callable[[str], None] = _to_stderr, backlog: int = 10_000
    ) -> None:
        """Open `path`, or standard output for "-".

        Args:
            path: where to append; made if it is not there.
            listener: told once when records have to wait, and once when they are through.
            backlog: how many records may wait.

        Raises:
            OutputError: it cannot be opened.
        """
        self.name = "standard output" if str(path) == "-" else str(path)
        self._listener = listener
        self._limit = backlog
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._told = False
        self._last_error: OSError | None = None
        self._info: SessionInfo | None = None
        self._stats: Stats | None = None
        self._gaps: dict[int, tuple[GapRecord, ...]] = {}
        # What must be written before the next record: the end of a line that was cut short.
        self._torn = b""
        try:
            if str(path) == "-":
                os.fstat(_STDOUT)
                self._fd: int | None = _STDOUT
            else:
                self._torn = b"\n" if _ends_torn(Path(path)) else b""
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise output_error(self.name, error) from error

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """Write the "session" record."""
        self._info = info
        self._stats = stats
        self._write(
            SessionRecord(
                wall_time=_now(),
                ovavel_version=version("ovavel"),
                source=encodable(info.source),
                senses=tuple(sorted(info.senses)),
                live=info.live,
                labels=tuple(encodable(label) for label in info.labels),
                vocabulary_version=info.vocabulary_version,
                model=info.model,
                licence=info.licence,
                bundle_sha256=info.bundle_sha256,
                backend=info.backend.name,
                device=info.backend.device,
                provider=info.backend.provider,
                precision={str(graph): precision for graph, precision in info.backend.precision.items()},
                versions=dict(info.backend.versions),
                lag=info.lag,
            )
        )

    def write(self, update: Update) -> None:
        """Write a "segment" record per second that is final now, and an "event" record per piece of news."""
        if update.window and update.window.gaps:
            self._gaps[update.window.index] = tuple(map(gap_record, update.window.gaps))
        for scores in update.scores:
            if scores.final:
                self._write(self._segment(scores))
        for event in update.events:
            latency_ms = None if update.latency_ms is None else round(update.latency_ms, 3)
            self._write(EventRecord(**event_fields(event), wall_time=_now(), latency_ms=latency_ms))

    def status(self, message: str) -> None:
        """Write a "status" record."""
        self._write(StatusRecord(wall_time=_now(), message=encodable(message)))

    def close(self) -> None:
        """Write the "summary" record and close the file.

        Raises:
            OutputError: some records could not be written; says how many.
        """
        if self._fd is None:
            return
        try:
            if self._info and self._stats:
                self._write(self._summary(self._stats))
            missing = len(self._waiting) + self._lost + (self._torn not in (b"", b"\n"))
        finally:
            self._release()
        if missing:
            reason = f" ({self._last_error.strerror})" if self._last_error else ""
            raise OutputError(
                f"{missing} records could not be written to {self.name}{reason}; "
                "what is there is good up to its last whole line. Free some space, then run again"
            )

    def _release(self) -> None:
        """Close the file, once; standard output is not ours to close."""
        if self._fd is not None and self._fd != _STDOUT:
            os.close(self._fd)
        self._fd = None

    def _segment(self, scores: SegmentScores) -> SegmentRecord:
        assert self._info is not None, "open comes before write"
        return SegmentRecord(
            **segment_fields(scores, self._info.labels, _TOP),
            wall_time=_now(),
            gaps=self._gaps.pop(scores.index, ()),
        )

    def _summary(self, stats: Stats) -> SummaryRecord:
        latency = stats.timings.percentiles("latency")
        return SummaryRecord(
            wall_time=_now(),
            windows=stats.windows,
            dropped=dict(sorted(stats.dropped.items())),
            missing=dict(sorted(stats.missing.items())),
            gap_s={cause: round(gap_s, 6) for cause, gap_s in sorted(stats.gap_s.items())},
            lost_records=self._lost,
            channels=stats.channels,
            latency_ms=Latency(**{name: round(ms, 3) for name, ms in latency._asdict().items()}) if latency else None,
        )

    def _write(self, record: Record) -> None:
        """Queue a record, then write all that waits, in order, as far as the disk lets it."""
        if self._fd is None:
            return
        if len(self._waiting) < self._limit:
            self._waiting.append(to_json_bytes(record) + b"\n")
        else:
            self._lost += 1
        try:
            while self._torn or self._waiting:
                line = self._torn or self._waiting[0]
                written = os.write(self._fd, line)
                if not self._torn:
                    self._waiting.popleft()
                self._torn = line[written:]
        except BrokenPipeError:
            self._release()
            raise
        except OSError as error:
            self._last_error = error
            if not self._told:
                self._told = True
                self._listener(
                    f"cannot write to {self.name} ({error.strerror}); records wait in memory, "
                    f"{self._limit} at most. Free some space to keep them all"
                )
            return
        if self._told:
            self._told = False
            lost = f"; {self._lost} were lost" if self._lost else ""
            self._listener(f"writing to {self.name} works again{lost}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ends_torn(path: Path) -> bool:
    """Whether a crash left the last line of a regular file without its end."""
    if not path.exists():
        return False
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
