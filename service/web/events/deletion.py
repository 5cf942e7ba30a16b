"""Deleting events for good, which only an admin may."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.evidence.deletion import delete_events, remove_files
from ovavel.service.store.database import Transaction
from ovavel.service.store.people import Identity, audit
from ovavel.service.store.queries import find_event
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, encoded, parameters, read_json
from ovavel.service.web.events.api import Changed, EventIds

__all__ = ["BulkDeletion", "EventsDeletion"]


class BulkDeletion(Struct, kw_only=True, forbid_unknown_fields=True):
    """Events to delete: all of them, or none."""

    ids: EventIds
    """Of events that have ended and are not pinned."""


class EventsDeletion:
    """Deletes events with their files, and says so to those who look at them."""

    def __init__(self, service: Service, gone: Callable[[Sequence[str]], None]) -> None:
        """Call `gone` with the ids of what was deleted."""
        self._service, self._gone = service, gone

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/events:delete", self.delete_all, methods=["POST"]),
            Route("/api/v1/events/{event}", self.delete, methods=["DELETE"]),
        ]

    def delete(self, request: Request) -> Response:
        """Delete an event that has ended and is not pinned, with its files."""
        me = asking(request, "admin")
        parameters(request)
        self._delete(me, (request.path_params["event"],))
        return Response(status_code=204)

    async def delete_all(self, request: Request) -> Response:
        """Delete several events: all of them, or none."""
        me = asking(request, "admin")
        ids = tuple(dict.fromkeys((await read_json(request, BulkDeletion)).ids))
        await run_in_threadpool(self._delete, me, ids)
        return encoded(Changed(changed=len(ids)))

    def _delete(self, me: Identity, events: Sequence[str]) -> None:
        store, now_us = self._service.store, time.time_ns() // 1000
        with store.write() as transaction:
            for event in events:
                _check(transaction, me, event, now_us)
            paths = delete_events(transaction, events)
        remove_files(store, paths)
        self._gone(events)


def _check(transaction: Transaction, me: Identity, event: str, now_us: int) -> None:
    """Put on record who deletes the event.

    Raises:
        Problem: it cannot be deleted.
    """
    found = find_event(transaction, event)
    if found is None:
        raise Problem(404, f"there is no event {event!r}; nothing was deleted")
    if found.state == "open":
        raise Problem(409, f"the event {event!r} has not ended; delete it when it has. Nothing was deleted")
    if found.pinned:
        raise Problem(409, f"the event {event!r} is pinned; unpin it first. Nothing was deleted")
    detail = {"event": event, "camera": found.camera, "label": found.label, "start_us": found.start_us}
    audit(transaction, me.name, "delete event", detail, now_us=now_us)
