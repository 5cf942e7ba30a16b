"""What `ovavel localize` makes of a recording, and the windows that its source gives."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.results import Document
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Gap, Window


class Answer(NamedTuple):
    """What `ovavel localize` made of one recording."""

    code: int
    document: Document
    out: str
    err: str

    @property
    def events(self) -> list[tuple[float, float, str]]:
        return [(event.start_s, event.end_s, event.label) for event in self.document.events]

    def lost_s(self, sense: str, cause: str | None = None) -> float:
        gaps = [gap for gap in self.document.gaps if gap.sense == sense and cause in (None, gap.cause)]
        return sum(gap.duration_s for gap in gaps)


class Watched(NamedTuple):
    """The windows of a recording, and what its source reported."""

    windows: list[Window]
    gaps: list[Gap]
    """As the windows hold them."""
    reported: list[str]
    source: MediaSource
    assembler: WindowAssembler

    def lost_s(self, sense: str, cause: str | None = None) -> float:
        return sum(gap.duration_s for gap in self.gaps if gap.sense == sense and cause in (None, gap.cause))


def watch(path: Path, **options: Any) -> Watched:
    source = MediaSource(path, **options)
    assembler = WindowAssembler(source.senses, live=False)
    windows = [window for chunk in source.chunks() for window in assembler.push(chunk)]
    windows += assembler.flush()
    notices = [*(notice for window in windows for notice in window.notices), *assembler.notices]
    reported = [notice.message for notice in notices]
    counts = assembler.counts
    assert counts.frames_in == counts.frames_used + sum(counts.frames_dropped.values())
    assert counts.samples_in == counts.samples_used + sum(counts.samples_dropped.values())
    return Watched(windows, [gap for window in windows for gap in window.gaps], reported, source, assembler)


def wave(data: bytes, *, claimed: int, rate_hz: int = 16_000) -> bytes:
    """A WAV file of 16-bit mono whose header claims `claimed` bytes of samples."""
    header = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    riff = min(claimed + 36, 0xFFFFFFFF)
    return (
        b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt \x10\0\0\0" + header + b"data" + struct.pack("<I", claimed) + data
    )
