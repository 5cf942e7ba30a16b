"""What a site file may say of those that hear of events outside: one `[[sink]]` table each."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

__all__ = ["Apprise", "Jsonl", "Mqtt", "Name", "QuietHours", "Seconds", "Sink", "Webhook"]

Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z", description="a-z, 0-9, - and _")]
"""Part of addresses, topics and file names: plain and short."""
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=86_400)]
QuietHours: TypeAlias = Annotated[
    str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]\Z", description="22:00-06:30")
]
"""From the first time of day until before the second, through midnight where that is earlier."""
Secret: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
"""The value itself, "@FILE" for the first line of a file, or "env:NAME" for a variable."""
Topic: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\Z", max_length=200)]


class _Sink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    id: Name
    """Names it on the page, in the metrics and in the store; what it has not got yet hangs on it."""
    cameras: tuple[Name, ...] = ()
    """Cameras that it hears of; all by default."""
    labels: tuple[str, ...] = ()
    """Names of events that it hears of; all by default."""
    when: Literal["final", "early"] = "final"
    """final: once an event has ended and stands. early: when it starts, and again when it has ended or is retracted."""
    system: bool = True
    """Whether it hears of the service itself: a camera that is down, a disk that is nearly full, and the like."""
    cooldown_s: Seconds = 0.0
    """After it got news of a camera's label, further events of the same are left out for so long."""
    quiet_hours: tuple[QuietHours, ...] = ()
    """Times of day, in the zone of the camera, at which events are left out."""
    first_of_day: bool = False
    """Only the first event of a camera's label on each day, in the zone of the camera."""

    def wants(self, kind: str, camera: str, label: str) -> bool:
        """Whether this piece of news is for it."""
        kinds = ("start", "end", "retract") if self.when == "early" else ("end",)
        return kind in kinds and camera in (self.cameras or (camera,)) and label in (self.labels or (label,))

    def wants_incident(self, camera: str | None) -> bool:
        """Whether it hears of incidents of this camera, or of the site as a whole."""
        return self.system and (camera is None or camera in (self.cameras or (camera,)))


class Mqtt(_Sink, frozen=True, kw_only=True, tag="mqtt"):
    """A broker, with Home Assistant in mind."""

    address: Secret
    """mqtt://user:password@host:1883, or mqtts:// for TLS; "@FILE" and "env:NAME" keep the password out of here."""
    when: Literal["final", "early"] = "early"
    """early: the state of each label follows its events, and starts, ends and retractions are reported. final: ends
    alone, and labels have no state."""
    prefix: Topic = "ovavel"
    """First levels of its topics; the name of the site follows."""
    discovery: Topic | Literal[""] = "homeassistant"
    """First levels of the topics where Home Assistant looks for devices; "" announces none."""
    ca_file: str | None = None
    """Certificates that are trusted instead of the system's."""


class Webhook(_Sink, frozen=True, kw_only=True, tag="webhook"):
    """An address that news is posted to, signed as Standard Webhooks has it."""

    address: Secret
    """http:// or https://; "@FILE" and "env:NAME" keep it out of here."""
    secret: Secret
    """whsec_ and base64 of 24 to 64 bytes, with which the receiver verifies who it was."""
    timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    """An answer that takes longer counts as none."""
    ca_file: str | None = None
    """Certificates that are trusted instead of the system's."""


class Apprise(_Sink, frozen=True, kw_only=True, tag="apprise"):
    """Any of the services that Apprise can notify."""

    address: Secret
    """As Apprise has them, such as ntfy://topic or mailto://…; "@FILE" and "env:NAME" keep it out of here."""
    cooldown_s: Seconds = 60.0


class Jsonl(_Sink, frozen=True, kw_only=True, tag="jsonl"):
    """A file that grows by a line of JSON for each piece of news."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    """Where; opened again for each write, so that it may be moved away by logrotate."""


Sink: TypeAlias = Mqtt | Webhook | Apprise | Jsonl
