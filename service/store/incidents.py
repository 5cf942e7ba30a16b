"""What befell the service itself: reported through the outbox as events are, with an id and revisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ovavel.runtime.session_info import new_id
from ovavel.service.store.database import Transaction, rows
from ovavel.service.store.outbox import Subscriber, enqueue

__all__ = ["IncidentBody", "begin_incident", "end_incident", "incident_key", "list_incidents", "report_moment"]


class IncidentBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An incident as every sink has it. Revision 1 is its begin and revision 2 its end; a mere moment has only one."""

    id: str
    revision: int
    kind: Literal["begin", "end", "moment"]
    incident: str
    """What happened: "camera down", "disk low", "overload", "sink disabled", "clock step", "service started"."""
    start_us: int
    detail: str = ""
    camera: str | None = None
    """None: the whole site."""
    end_us: int | None = None


def incident_key(incident: str, camera: str | None) -> str:
    """Key of the outbox. It begins with a line end, as no key of an event does."""
    return f"\n{camera or ''}\n{incident}"


def begin_incident(
    transaction: Transaction,
    incident: str,
    *,
    now_us: int,
    sinks: Sequence[Subscriber],
    camera: str | None = None,
    detail: str = "",
) -> IncidentBody | None:
    """Write that an incident has begun; None where the same continues already."""
    if _open(transaction, incident, camera):
        return None
    body = IncidentBody(
        id=new_id(), revision=1, kind="begin", incident=incident, start_us=now_us, detail=detail, camera=camera
    )
    return _write(transaction, body, now_us, sinks)


def end_incident(
    transaction: Transaction,
    incident: str,
    *,
    now_us: int,
    sinks: Sequence[Subscriber],
    camera: str | None = None,
) -> IncidentBody | None:
    """Write that it is over; None where there is none that continues."""
    found = _open(transaction, incident, camera)
    if not found:
        return None
    id_, start_us, detail = found
    end_us = max(start_us + 1, now_us)  # a duration, however short: a moment has none
    transaction.execute("UPDATE incident SET end_us = ? WHERE id = ?", (end_us, id_))
    body = IncidentBody(
        id=id_,
        revision=2,
        kind="end",
        incident=incident,
        start_us=start_us,
        end_us=end_us,
        detail=detail,
        camera=camera,
    )
    _report(transaction, body, now_us, sinks)
    return body


def report_moment(
    transaction: Transaction, incident: str, *, now_us: int, sinks: Sequence[Subscriber], detail: str = ""
) -> IncidentBody:
    """Write that something happened that has no duration."""
    body = IncidentBody(
        id=new_id(), revision=1, kind="moment", incident=incident, start_us=now_us, end_us=now_us, detail=detail
    )
    return _write(transaction, body, now_us, sinks)


def list_incidents(connection: Transaction, *, limit: int = 50) -> list[IncidentBody]:
    """The newest incidents, as they are now."""
    found = rows(
        connection,
        "SELECT id, kind, camera_id, detail, start_us, end_us FROM incident ORDER BY start_us DESC, id DESC LIMIT ?",
        (limit,),
    )
    return [
        IncidentBody(
            id=id_,
            revision=1 if end_us in (None, start_us) else 2,
            kind="begin" if end_us is None else "moment" if end_us == start_us else "end",
            incident=incident,
            start_us=start_us,
            end_us=end_us,
            detail=detail,
            camera=camera,
        )
        for id_, incident, camera, detail, start_us, end_us in found
    ]


def _open(transaction: Transaction, incident: str, camera: str | None) -> tuple[str, int, str] | None:
    query = "SELECT id, start_us, detail FROM incident WHERE kind = ? AND camera_id IS ? AND end_us IS NULL"
    return next(((id_, start, detail) for id_, start, detail in rows(transaction, query, (incident, camera))), None)


def _write(transaction: Transaction, body: IncidentBody, now_us: int, sinks: Sequence[Subscriber]) -> IncidentBody:
    transaction.execute(
        "INSERT INTO incident (id, kind, camera_id, detail, start_us, end_us) VALUES (?, ?, ?, ?, ?, ?)",
        (body.id, body.incident, body.camera, body.detail, body.start_us, body.end_us),
    )
    _report(transaction, body, now_us, sinks)
    return body


def _report(transaction: Transaction, body: IncidentBody, now_us: int, sinks: Sequence[Subscriber]) -> None:
    encoded = msgspec.json.encode(body).decode()
    for sink in sinks:
        if sink.wants_incident(body.camera):
            key = incident_key(body.incident, body.camera)
            enqueue(transaction, sink.id, body, encoded, key=key, now_us=now_us)
