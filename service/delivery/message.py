"""One piece of news as it leaves the house: the same facts for every sink, and a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from ovavel.runtime.reporting.text import one_line
from ovavel.service.config.site import Site
from ovavel.service.store.events import EventBody
from ovavel.service.store.incidents import IncidentBody
from ovavel.service.store.outbox import Delivery

__all__ = ["LATE_US", "TEST", "Message", "Place", "message_of", "test_message"]

LATE_US = 60_000_000
"""News that is delivered so long after it was written is late; a start that old is not reported at all."""
TEST = "test message"

_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(slots=True)
class Place:
    """What people call the site and its cameras, by which clocks they live, and what is searched for there."""

    site: Site
    """Replaced where the site file was read again."""
    labels: tuple[str, ...] = ()
    """Names that events can have. Replaced where the bundle's vocabulary was read again."""

    def name(self, camera: str) -> str:
        """What people call a camera."""
        return next((each.name for each in self.site.camera if each.id == camera and each.name), camera)

    def zone(self, camera: str | None) -> ZoneInfo:
        """The time zone of a camera, or of the site."""
        own = next((each.tz for each in self.site.camera if each.id == camera), "")
        return ZoneInfo(own or self.site.tz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A delivery that is about to be sent."""

    delivery: Delivery
    body: EventBody | IncidentBody
    late: bool
    text: str
    """One line for people."""

    @property
    def id(self) -> str:
        """The same for every attempt, so that a receiver can drop what it has already."""
        return f"{self.delivery.event_id}.{self.delivery.revision}"

    @property
    def type(self) -> str:
        """What it is, as in "event.end" or "incident.begin"."""
        return f"{'event' if isinstance(self.body, EventBody) else 'incident'}.{self.body.kind}"

    @property
    def created(self) -> str:
        """When the news was written, as ISO 8601 has it."""
        return _utc(self.delivery.created_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def data(self) -> dict[str, Any]:
        """The body, and whether it is late."""
        values: dict[str, Any] = msgspec.to_builtins(self.body)
        return {**values, "late": True} if self.late else values


def message_of(delivery: Delivery, place: Place, *, now_us: int) -> Message:
    """What `delivery` says."""
    body: EventBody | IncidentBody
    if delivery.is_incident:
        body = msgspec.json.decode(delivery.body, type=IncidentBody)
    else:
        body = msgspec.json.decode(delivery.body, type=EventBody)
    late = now_us - delivery.created_us > LATE_US
    text = _event_text(body, place) if isinstance(body, EventBody) else _incident_text(body, place)
    return Message(delivery=delivery, body=body, late=late, text=one_line(text + (" (delivered late)" if late else "")))


def test_message(sink: str, place: Place, *, id_: str, now_us: int) -> Message:
    """A message that only shows that messages arrive."""
    body = IncidentBody(id=id_, revision=1, kind="moment", incident=TEST, start_us=now_us, end_us=now_us)
    delivery = Delivery(
        id=0,
        sink=sink,
        key="\n",
        event_id=id_,
        revision=1,
        body=msgspec.json.encode(body).decode(),
        created_us=now_us,
        attempts=0,
    )
    return message_of(delivery, place, now_us=now_us)


def _event_text(event: EventBody, place: Place) -> str:
    zone, name = place.zone(event.camera), place.name(event.camera)
    start, end = (_utc(us).astimezone(zone) for us in (event.start_us, event.end_us))
    at = f"{start:%Y-%m-%d %H:%M:%S}"
    match event.kind:
        case "start":
            return f"{name}: {event.label} since {at}"
        case "retract":
            return f"{name}: not confirmed: {event.label} at {at}"
        case _:
            why = f" ({event.end_cause})" if event.end_cause else ""
            return f"{name}: {event.label} from {at} to {end:%H:%M:%S}{why}"


def _incident_text(incident: IncidentBody, place: Place) -> str:
    where = place.name(incident.camera) if incident.camera else place.site.name
    detail = f": {incident.detail}" if incident.detail else ""
    if incident.kind == "end" and incident.end_us is not None:
        return f"{where}: {incident.incident} is over after {_length((incident.end_us - incident.start_us) / 1e6)}"
    return f"{where}: {incident.incident}{detail}"


def _length(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


def _utc(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
