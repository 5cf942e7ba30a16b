"""News as JSON Lines: one record a line, each on disk before the next one is made.

The records are described in `ovavel.runtime.sinks.records`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ovavel.runtime.reporting.text import encodable, one_line
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.appended import AppendedFile
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.sinks.records import (
    EventRecord,
    GapRecord,
    Latency,
    NoticeRecord,
    Record,
    SegmentRecord,
    SessionRecord,
    SummaryRecord,
    economy_record,
    event_fields,
    gap_record,
    segment_fields,
    session_fields,
)
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import SegmentScores, Update

__all__ = ["JsonlSink"]

_TOP = 5


def _to_stderr(message: str) -> None:
    print(f"ovavel: {one_line(message)}", file=sys.stderr, flush=True)


class JsonlSink:
    """Appends one JSON object a line to an `AppendedFile`: what is written survives a kill, a full disk loses nothing.

    `BrokenPipeError` passes through.
    """

    def __init__(
        self, path: Path | str, *, listener: Callable[[str], None] = _to_stderr, backlog: int = 10_000
    ) -> None:
        """Open `path`, or standard output for "-".

        Args:
            path: where to append; made if it is not there.
            listener: gets one sentence when records have to wait, when they are through, and when the file was moved,
                removed or found torn.
            backlog: how many records may wait.

        Raises:
            OutputError: it cannot be opened.
        """
        self._file = AppendedFile(path, listener=listener, backlog=backlog)
        self.name = self._file.name
        self._info: SessionInfo | None = None
        self._stats: Stats | None = None
        self._gaps: dict[int, tuple[GapRecord, ...]] = {}
        self._ended = False

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """Write the "session" record."""
        self._info = info
        self._stats = stats
        self._write(
            SessionRecord(
                wall_time=_now(),
                ovavel_version=version("ovavel"),
                started_at=_utc(info.started_at),
                **session_fields(info),
            )
        )

    def write(self, update: Update) -> None:
        """Write a "notice" record each, a "segment" record per second that is final now, an "event" record per news."""
        assert self._info is not None, "open comes before write"
        for notice in update.notices:
            self._write(
                NoticeRecord(wall_time=_now(), time_s=round(notice.time_s, 6), message=encodable(notice.message))
            )
        if update.window and update.window.gaps:
            self._gaps[update.window.index] = tuple(map(gap_record, update.window.gaps))
        for scores in update.scores:
            if scores.final:
                self._write(self._segment(scores, self._info))
        for event in update.events:
            latency_ms = None if update.latency_ms is None else round(update.latency_ms, 3)
            self._write(EventRecord(**event_fields(event, self._info), wall_time=_now(), latency_ms=latency_ms))
        self._ended = update.window is None

    def close(self) -> None:
        """Write the "summary" record, if the session came to its end, and close the file.

        Raises:
            OutputError: some records could not be written, or were removed; says how many.
        """
        if self._ended and self._stats:
            self._ended = False
            self._write(self._summary(self._stats))
        self._file.close()

    def _segment(self, scores: SegmentScores, info: SessionInfo) -> SegmentRecord:
        return SegmentRecord(
            **segment_fields(scores, info.labels, _TOP),
            wall_time=_now(),
            gaps=self._gaps.pop(scores.index, ()),
        )

    def _summary(self, stats: Stats) -> SummaryRecord:
        economy = stats.economy.figures
        latency = stats.timings.percentiles("latency")
        return SummaryRecord(
            wall_time=_now(),
            windows=stats.windows,
            dropped=dict(sorted(stats.dropped.items())),
            missing=dict(sorted(stats.missing.items())),
            gap_s={cause: round(gap_s, 6) for cause, gap_s in sorted(stats.gap_s.items())},
            lost_records=self._file.lost,
            channels=stats.channels,
            latency_ms=Latency(**{name: round(ms, 3) for name, ms in latency._asdict().items()}) if latency else None,
            economy=economy_record(economy) if economy.pictures else None,
            economy_most_at_once=economy.most_at_once,
        )

    def _write(self, record: Record) -> None:
        self._file.write(to_json_bytes(record) + b"\n")


def _now() -> str:
    return _utc(datetime.now(UTC))


def _utc(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
