"""Whether a sink gets a piece of news now. Pure but for what it asks of the history; it never sends anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from ovavel.service.config.sinks import Sink
from ovavel.service.delivery.message import LATE_US
from ovavel.service.store.events import EventBody
from ovavel.service.store.incidents import IncidentBody
from ovavel.service.store.outbox import Delivery, Earlier

__all__ = [
    "COOLDOWN",
    "LATE_START",
    "NEVER_REPORTED",
    "NOT_FIRST",
    "QUIET",
    "SNOOZED",
    "History",
    "in_quiet_hours",
    "one_at_a_time",
    "suppression",
]

COOLDOWN, QUIET, SNOOZED, NOT_FIRST = "cooldown", "quiet hours", "snoozed", "not the first of the day"
LATE_START = "start too long ago"
NEVER_REPORTED = "retracted before it was reported"
_DECIDED = frozenset({COOLDOWN, QUIET, SNOOZED, NOT_FIRST, NEVER_REPORTED})


class History(Protocol):
    """What happened before."""

    def earlier(self, delivery: Delivery) -> Sequence[Earlier]:
        """What became of the earlier revisions of its event, for the same sink."""
        ...

    def last_delivered_us(self, key: str) -> tuple[int, int] | None:
        """When the newest news of this key that the sink got was written, and when it was delivered."""
        ...

    def is_snoozed(self, camera: str, label: str, at_us: int) -> bool:
        """Whether news of a label was to be left out at this moment."""
        ...


def suppression(
    sink: Sink, delivery: Delivery, body: EventBody | IncidentBody, zone: ZoneInfo, history: History, *, now_us: int
) -> str | None:
    """Why the sink does not get this; None where it does.

    What follows news that the sink has got, or has not, follows it. Everything else is judged by the time at which the
    news was written, so that a receiver that was away gets what it would have got.
    """
    before = history.earlier(delivery)
    if any(each.state == "delivered" for each in before):
        return None
    if body.kind == "retract":
        return NEVER_REPORTED
    for each in before:
        if each.state == "suppressed" and each.cause in _DECIDED:
            return each.cause
    if body.kind == "start" and now_us - delivery.created_us > LATE_US:
        return LATE_START
    if isinstance(body, EventBody):
        if cause := _untimely(sink, delivery, body, zone, history, now_us):
            return cause
    elif body.kind == "moment":
        return None
    last = history.last_delivered_us(delivery.key) if sink.cooldown_s else None
    if last and last[1] <= now_us and delivery.created_us < last[1] + sink.cooldown_s * 1e6:
        return COOLDOWN  # a delivery in the future: the clock was set back
    return None


def _untimely(
    sink: Sink, delivery: Delivery, event: EventBody, zone: ZoneInfo, history: History, now_us: int
) -> str | None:
    if any(history.is_snoozed(event.camera, event.label, at_us) for at_us in (delivery.created_us, now_us)):
        return SNOOZED
    if in_quiet_hours(sink.quiet_hours, delivery.created_us, zone):
        return QUIET
    last = history.last_delivered_us(delivery.key) if sink.first_of_day else None
    if last and _local(last[0], zone).date() == _local(delivery.created_us, zone).date():
        return NOT_FIRST
    return None


def one_at_a_time(sink: Sink) -> bool:
    """Whether a second message of a key must wait until it is known what became of the first."""
    return sink.cooldown_s > 0 or sink.first_of_day


def in_quiet_hours(spans: Sequence[str], at_us: int, zone: ZoneInfo) -> bool:
    """Whether the wall clock of `zone` showed a time within one of `spans`, each "HH:MM-HH:MM"."""
    at = _local(at_us, zone).time()
    for span in spans:
        begin, end = (time.fromisoformat(each) for each in span.split("-"))
        if begin <= at < end or (end <= begin and (at >= begin or at < end)):
            return True
    return False


def _local(us: int, zone: ZoneInfo) -> datetime:
    return (datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)).astimezone(zone)
