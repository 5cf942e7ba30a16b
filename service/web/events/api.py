"""Events under /api/v1: pages of them, why each is one, what people say of them, and all of it in a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.store.database import Transaction, rows
from ovavel.service.store.events import EventBody, revise
from ovavel.service.store.people import Identity, audit
from ovavel.service.store.queries import EventFilter, find_event, list_events
from ovavel.service.store.seconds import read_seconds
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, Streamed, asking, encoded, only, parameters, read_json, whole
from ovavel.service.web.events.export import archived

__all__ = ["FILTERS", "VERDICTS", "BulkChange", "Changed", "EventChange", "EventIds", "EventsAPI", "filter_of"]

FILTERS = ("camera", "label", "state", "reviewed", "verdict", "pinned", "from", "to")
Verdict = Literal["right", "not this"]
VERDICTS: tuple[str, ...] = ("right", "not this")
_MOST, _USUAL = 500, 50
_EXPORTS = 2
_ZIP = "application/zip"
EventIds: TypeAlias = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(min_length=1, max_length=_MOST)
]


class EventChange(Struct, kw_only=True, forbid_unknown_fields=True):
    """What somebody says of an event; what is left out stays as it is."""

    reviewed: bool | UnsetType = UNSET
    verdict: Verdict | UnsetType | None = UNSET
    """Whether it was what its label says; null takes that back. It counts as reviewed then."""
    pinned: bool | UnsetType = UNSET
    """What is pinned is not deleted."""


class BulkChange(EventChange, kw_only=True, forbid_unknown_fields=True):
    """The same of several events: all of them, or none."""

    ids: EventIds


class Changed(Struct, kw_only=True):
    """How many events there were to change."""

    changed: int


def filter_of(given: QueryParams, service: Service) -> EventFilter:
    """Which events the parameters ask for.

    Raises:
        Problem: one of them makes no sense.
    """
    camera = given.get("camera") or None
    if camera is not None and not rows(service.store.read, "SELECT 1 FROM camera WHERE id = ?", (camera,)):
        raise Problem(404, f"there is no camera {camera!r}")
    return EventFilter(
        camera=camera,
        label=given.get("label") or None,
        state=only(given, "state", ("open", "ended", "retracted")),
        reviewed=_yes(given, "reviewed"),
        verdict=only(given, "verdict", VERDICTS),
        pinned=_yes(given, "pinned"),
        from_us=whole(given, "from"),
        to_us=whole(given, "to"),
    )


def _yes(given: QueryParams, name: str) -> bool | None:
    text = only(given, name, ("true", "false"))
    return None if text is None else text == "true"


class EventsAPI:
    """Answers questions about events, and takes what people say of them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._exports = 0  # that are being sent

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/events", self.events),
            Route("/api/v1/events:bulk", self.change_all, methods=["POST"]),
            Route("/api/v1/events/{event}", self.event),
            Route("/api/v1/events/{event}", self.change, methods=["PATCH"]),
            Route("/api/v1/events/{event}/seconds", self.seconds),
            Route("/api/v1/export", self.export),
        ]

    def events(self, request: Request) -> Response:
        """Events, newest first, page by page."""
        given = parameters(request, *FILTERS, "cursor", "limit")
        where = filter_of(given, self._service)
        limit = _USUAL if (asked := whole(given, "limit")) is None else asked
        if not 1 <= limit <= _MOST:
            raise Problem(400, f"limit must be from 1 to {_MOST}")
        try:
            return encoded(list_events(self._service.store.read, where, cursor=given.get("cursor"), limit=limit))
        except ValueError as error:
            raise Problem(400, str(error)) from error

    def event(self, request: Request) -> Response:
        """One event."""
        parameters(request)
        return encoded(self._found(request.path_params["event"]))

    def seconds(self, request: Request) -> Response:
        """What was seen and heard best in each second of an event, and a few before it."""
        parameters(request)
        event = self._found(request.path_params["event"])
        return encoded(read_seconds(self._service.store.read, event.id))

    async def change(self, request: Request) -> Response:
        """Review an event, say whether it was right, pin it."""
        me = asking(request, "operate")
        said = await read_json(request, EventChange)
        event = request.path_params["event"]
        await run_in_threadpool(self._change, me, (event,), said)
        return encoded(await run_in_threadpool(self._found, event))

    async def change_all(self, request: Request) -> Response:
        """The same of several events."""
        me = asking(request, "operate")
        said = await read_json(request, BulkChange)
        ids = tuple(dict.fromkeys(said.ids))
        await run_in_threadpool(self._change, me, ids, said)
        return encoded(Changed(changed=len(ids)))

    async def export(self, request: Request) -> Response:
        """The newest events that match, up to 500, with what is known of them, as a ZIP archive."""
        given = parameters(request, *FILTERS)
        headers = {"content-disposition": 'attachment; filename="events.zip"', "cache-control": "no-store"}
        store, where = self._service.store, await run_in_threadpool(filter_of, given, self._service)
        page = await run_in_threadpool(lambda: list_events(store.read, where, limit=_MOST))
        if request.method == "HEAD":
            return Response(media_type=_ZIP, headers=headers)
        if self._exports >= _EXPORTS:
            raise Problem(503, f"{_EXPORTS} exports are being sent; try again later", {"retry-after": "30"})
        self._exports += 1
        return Streamed(archived(store, page.events), self._exported, media_type=_ZIP, headers=headers)

    def _exported(self) -> None:
        self._exports -= 1

    def _found(self, event: str) -> EventBody:
        found = find_event(self._service.store.read, event)
        if found is None:
            raise Problem(404, "there is no such event")
        return found

    def _change(self, me: Identity, events: Sequence[str], said: EventChange) -> None:
        now_us = time.time_ns() // 1000
        with self._service.store.write() as transaction:
            for event in events:
                if not rows(transaction, "SELECT 1 FROM event WHERE id = ?", (event,)):
                    raise Problem(404, f"there is no event {event!r}; nothing was changed")
                self._say(transaction, me, event, said, now_us)

    def _say(self, transaction: Transaction, me: Identity, event: str, said: EventChange, now_us: int) -> None:
        if not isinstance(said.reviewed, UnsetType):
            revise(transaction, event, "review", now_us=now_us, by=me.name, reviewed=said.reviewed)
        if not isinstance(said.verdict, UnsetType):
            revise(transaction, event, "verdict", now_us=now_us, by=me.name, verdict=said.verdict)
        if not isinstance(said.pinned, UnsetType):
            revise(transaction, event, "pin", now_us=now_us, pinned=said.pinned)
        change = {name: getattr(said, name) for name in ("reviewed", "verdict", "pinned")}
        given = {name: value for name, value in change.items() if value is not UNSET}
        if given:
            audit(transaction, me.name, "change event", {"event": event, **given}, now_us=now_us)
