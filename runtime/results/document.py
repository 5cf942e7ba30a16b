"""Results as JSON that reads back."""

from __future__ import annotations

from pathlib import Path

from msgspec import field

from ovavel.runtime.errors import InputError
from ovavel.runtime.reporting.text import encodable
from ovavel.runtime.results.localization import Localization
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.sinks.records import (
    EconomyRecord,
    EventFields,
    GapRecord,
    SegmentFields,
    SessionFields,
    economy_record,
    event_fields,
    gap_record,
    segment_fields,
    session_fields,
)
from ovavel.runtime.system import untrusted

__all__ = ["Document", "parse_json", "read_json", "to_json"]

_VERSION = 1
_TOP = 10


class Document(SessionFields, frozen=True, kw_only=True, tag_field="type", tag="ovavel.localization"):
    """What the JSON file of one recording holds. Another run over the same file writes the same bytes."""

    format_version: int
    duration_s: float
    events: tuple[EventFields, ...]
    segments: tuple[SegmentFields, ...]
    """One per second, each with its ten best classes."""
    gaps: tuple[GapRecord, ...]
    dropped: dict[str, int]
    trailing_s: float
    notes: tuple[str, ...] = ()
    """Messages of the source, for people."""
    channels: dict[int, int] = field(default_factory=dict)
    """Seconds in which each channel of the sound was listened to, by its index; none for a mix."""
    economy: EconomyRecord | None = None
    """What was not computed; null where every picture was looked at."""


def to_json(localization: Localization) -> bytes:
    """Write the `Document` of a recording, in UTF-8. A number that is not finite becomes null."""
    info = localization.info
    document = Document(
        format_version=_VERSION,
        **session_fields(info),
        duration_s=round(float(localization.duration_s), 6),
        events=tuple(EventFields(**event_fields(event, info)) for event in localization.events),
        segments=tuple(SegmentFields(**segment_fields(scores, info.labels, _TOP)) for scores in localization.scores),
        gaps=tuple(map(gap_record, localization.gaps)),
        dropped=dict(localization.dropped),
        trailing_s=round(float(localization.trailing_s), 6),
        notes=tuple(map(encodable, localization.notes)),
        channels=dict(localization.channels),
        economy=None if localization.economy is None else economy_record(localization.economy),
    )
    return to_json_bytes(document) + b"\n"


def read_json(path: Path) -> Document:
    """Read what `to_json` wrote.

    Raises:
        InputError: it cannot be read, is no such file, or of another version.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a JSON file of `ovavel localize`: {error}") from error
    return parse_json(data, str(path))


def parse_json(data: bytes, name: str) -> Document:
    """Read the content `data` of the file `name`. Raises InputError, see `read_json`."""
    try:
        document = untrusted.read_json(data, Document)
    except ValueError as error:
        raise InputError(f"{name} is not a JSON file of `ovavel localize`: {error}") from error
    if document.format_version != _VERSION:
        raise InputError(
            f"{name} has format version {document.format_version}; this ovavel reads {_VERSION}. Localize it again"
        )
    return document
