"""What ovavel writes down, as plain records: lines of a JSONL file and parts of a JSON file.

Each line of a JSONL file is one `Record`; read it with `msgspec.json.decode(line, type=Record)`. Two runs over one file
write the same records, ids included, but for `wall_time`, `started_at` and `latency_ms`; of anything live, also the ids
differ. A number that is not finite is written as null.

Shapes: C named classes, so C + 1 with the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import msgspec
import numpy as np

from ovavel.runtime.economy.counts import EconomyFigures
from ovavel.runtime.reporting.text import encodable
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.as_json import number
from ovavel.runtime.types import Event, EventState, Gap, SegmentScores, Sense

__all__ = [
    "EconomyRecord",
    "EventFields",
    "EventRecord",
    "GapRecord",
    "Latency",
    "NoticeRecord",
    "Record",
    "SegmentFields",
    "SegmentRecord",
    "SessionFields",
    "SessionRecord",
    "SummaryRecord",
    "economy_record",
    "event_fields",
    "gap_record",
    "segment_fields",
    "session_fields",
]


class ClassRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one second says of one class."""

    label: str
    score: float | None
    vision_similarity: float | None
    """Null where nothing was seen, or nobody looked."""
    audio_similarity: float | None
    """Null where nothing was heard."""


class GapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Video or audio that was lost."""

    sense: Sense
    cause: str
    start_s: float
    duration_s: float


class SegmentFields(msgspec.Struct, frozen=True, kw_only=True):
    """The final decision on one second."""

    index: int
    start_s: float
    label: str
    score: float | None
    margin: float | None
    """How far above the background; 0 for the background."""
    context: int
    """How many seconds the temporal head saw for it."""
    missing: tuple[Sense, ...]
    classes: tuple[ClassRecord, ...]
    """The best classes, best first."""
    probability: float | None = None
    """Calibrated probability of `label`; null without a calibration, and where a sense is missing or nobody looked."""
    skipped: str | None = None
    """Why nobody looked at the picture, see `SkipCause`; null: somebody did, or it is missing."""


class EventFields(msgspec.Struct, frozen=True, kw_only=True):
    """One event, or news of it."""

    id: str
    """Unique beyond the session: the session's id, a hyphen, and the event's number in it."""
    label: str
    start_s: float
    end_s: float
    peak_score: float | None
    peak_margin: float | None
    """How far above the background, at best."""
    state: EventState
    vocabulary_version: str
    peak_probability: float | None = None
    """Highest probability of its seconds; null where the bundle is not calibrated."""


class SessionFields(msgspec.Struct, frozen=True, kw_only=True):
    """What everything else rests on; see `SessionInfo`."""

    session_id: str
    """Unique. Another run over the same file with the same bundle, engine and options has the same one."""
    source: str
    senses: tuple[Sense, ...]
    live: bool
    labels: tuple[str, ...]
    """Class names, background last."""
    vocabulary_version: str
    model: str
    licence: str
    bundle_sha256: str
    backend: str
    device: str
    provider: str
    precision: dict[str, str]
    versions: dict[str, str]
    lag: int
    fusion: str
    """Name of the rule that decided, e.g. "positive" or "agreement+debiased"."""
    channel: int | str
    rules: dict[str, float | None]
    economy_mode: str = "off"
    """What was left out where nothing happened: "off", "exact" or "auto"."""
    economy_note: str = ""
    """Why sound did not decide alone although economy was asked for; empty if it did, or was not asked to."""


class SessionRecord(SessionFields, frozen=True, kw_only=True, tag_field="type", tag="session"):
    """First line of a session."""

    wall_time: str
    """ISO 8601, UTC."""
    started_at: str
    """When the session was ready; ISO 8601, UTC."""
    ovavel_version: str


class SegmentRecord(SegmentFields, frozen=True, kw_only=True, tag_field="type", tag="segment"):
    """One second, once its decision is final."""

    wall_time: str
    gaps: tuple[GapRecord, ...]


class EventRecord(EventFields, frozen=True, kw_only=True, tag_field="type", tag="event"):
    """News of one event."""

    wall_time: str
    latency_ms: float | None
    """From the capture of the newest second to this news; null for the news at the very end, and for a file that is
    not played at its own speed."""


class NoticeRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="notice"):
    """One sentence for people, such as that a camera was lost."""

    wall_time: str
    time_s: float
    """Media time that was reached."""
    message: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from capture to decision, over the newest windows."""

    p50: float
    p95: float
    p99: float


class EconomyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was not computed; see `EconomyFigures`."""

    pictures: int
    encoded: int
    reused: int
    sounds: int
    sounds_reused: int
    lost: int
    """Pictures that were needed and could not be encoded."""
    skipped: dict[str, int]
    """Seconds decided without their picture, by cause."""
    audited: int
    audits_failed: int
    drift_p99: float | None
    drift_max: float | None
    saved: float | None
    """Share of the encoders' operations; null where their sizes are not known."""


class SummaryRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """Last line of a session that ended cleanly."""

    wall_time: str
    windows: int
    dropped: dict[str, int]
    """Windows never decided on, by cause."""
    missing: dict[str, int]
    """Seconds that could hold no event because a sense was missing, by sense."""
    gap_s: dict[str, float]
    """Seconds of sight or sound that were lost, by cause."""
    lost_records: int
    """Records that are missing from this file because the disk was full for too long."""
    channels: dict[int, int]
    """Seconds in which each channel of the sound was listened to, by its index; none for a mix."""
    latency_ms: Latency | None
    """Null where no window was encoded, and for a file that is not played at its own speed."""
    economy: EconomyRecord | None = None
    """Null where every picture is looked at."""
    economy_most_at_once: int = 0
    """Most pictures encoded for one second, when sound woke vision."""


Record: TypeAlias = SessionRecord | SegmentRecord | EventRecord | NoticeRecord | SummaryRecord


def top_classes(scores: SegmentScores, labels: Sequence[str], count: int) -> tuple[ClassRecord, ...]:
    """Give the `count` classes of the highest score, best first; ties keep the order of the classes."""
    ranked = np.argsort(-scores.scores, kind="stable")[:count]
    return tuple(
        ClassRecord(
            label=encodable(labels[c]),
            score=number(scores.scores[c]),
            vision_similarity=number(scores.vision_similarity[c]),
            audio_similarity=number(scores.audio_similarity[c]),
        )
        for c in ranked
    )


def economy_record(figures: EconomyFigures) -> EconomyRecord:
    """Write down what was not computed. It depends on the session alone, not on how fast it ran."""
    record = msgspec.convert(figures, EconomyRecord, from_attributes=True)
    shares = {name: getattr(record, name) for name in ("drift_p99", "drift_max", "saved")}
    return msgspec.structs.replace(
        record,
        **{name: None if share is None else number(share) for name, share in shares.items()},
    )


def gap_record(gap: Gap) -> GapRecord:
    """Write down a gap."""
    return GapRecord(
        sense=gap.sense,
        cause=encodable(str(gap.cause)),
        start_s=round(float(gap.start_s), 6),
        duration_s=round(float(gap.duration_s), 6),
    )


def segment_fields(scores: SegmentScores, labels: Sequence[str], count: int) -> dict[str, Any]:
    """Give the `SegmentFields` of one second, with its `count` best classes."""
    return {
        "index": scores.index,
        "start_s": round(float(scores.start_s), 6),
        "label": encodable(scores.label),
        "score": number(scores.score),
        "margin": number(scores.margin),
        "context": scores.context,
        "missing": scores.missing,
        "classes": top_classes(scores, labels, count),
        "probability": None if scores.probability is None else number(scores.probability),
        "skipped": None if scores.skipped is None else str(scores.skipped),
    }


def session_fields(info: SessionInfo) -> dict[str, Any]:
    """Give the `SessionFields` of a session."""
    backend = info.backend
    return {
        "session_id": info.id,
        "source": encodable(info.source),
        "senses": tuple(sorted(info.senses)),
        "live": info.live,
        "labels": tuple(map(encodable, info.labels)),
        "vocabulary_version": info.vocabulary_version,
        "model": info.model,
        "licence": info.licence,
        "bundle_sha256": info.bundle_sha256,
        "backend": backend.name,
        "device": backend.device,
        "provider": backend.provider,
        "precision": {str(graph): precision for graph, precision in backend.precision.items()},
        "versions": dict(backend.versions),
        "lag": info.lag,
        "fusion": info.fusion,
        "channel": info.channel,
        "rules": asdict(info.rules),
        "economy_mode": info.economy.mode,
        "economy_note": info.economy.why_not,
    }


def event_fields(event: Event, info: SessionInfo) -> dict[str, Any]:
    """Give the `EventFields` of one piece of news of the session `info`."""
    return {
        "id": info.event_id(event),
        "label": encodable(event.label),
        "start_s": round(float(event.start_s), 6),
        "end_s": round(float(event.end_s), 6),
        "peak_score": number(event.peak_score),
        "peak_margin": number(event.peak_margin),
        "state": event.state,
        "vocabulary_version": event.vocabulary_version,
        "peak_probability": None if event.peak_probability is None else number(event.peak_probability),
    }
