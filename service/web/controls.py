"""What a person does to the house and to its sinks: switch cameras, snooze them, try a sink, look at what waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.store import people
from ovavel.service.store.incidents import list_incidents
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, encoded, parameters, read_json

__all__ = ["Controls", "Enable", "Snooze", "Tried"]

TEST_S = 90.0
"""A sink that has not answered by then does not."""


class Enable(Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether a camera is to be watched."""

    on: bool


class Snooze(Struct, kw_only=True, forbid_unknown_fields=True):
    """Report nothing for so long."""

    hours: Annotated[float, Meta(ge=0, le=168)]
    """0 ends it."""
    label: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """Only of this name; None: of the whole camera."""


class Tried(Struct, kw_only=True):
    """What became of a test message."""

    delivered: bool
    why: str
    """Why not; empty where it was."""


class Controls:
    """Routes that change what the service does, and those that show what it reports."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/cameras/{camera}/enable", self.enable, methods=["POST"]),
            Route("/api/v1/cameras/{camera}/snooze", self.snooze, methods=["POST"]),
            Route("/api/v1/outbox", self.outbox),
            Route("/api/v1/outbox/{sink}/test", self.test, methods=["POST"]),
            Route("/api/v1/incidents", self.incidents),
        ]

    async def enable(self, request: Request) -> Response:
        """Switch a camera on or off, also for later starts."""
        me, camera = asking(request, "operate"), self._camera(request)
        asked = await read_json(request, Enable)
        await run_in_threadpool(self._service.enable, camera, asked.on)
        await run_in_threadpool(self._audit, me.name, "enable camera", {"camera": camera, "on": asked.on})
        return Response(status_code=204)

    async def snooze(self, request: Request) -> Response:
        """Report nothing of a camera, or of one of its labels, for some hours."""
        me, camera = asking(request, "operate"), self._camera(request)
        asked = await read_json(request, Snooze)
        await run_in_threadpool(self._service.deliveries.snooze, camera, asked.hours, asked.label)
        detail = {"camera": camera, "label": asked.label, "hours": asked.hours}
        await run_in_threadpool(self._audit, me.name, "snooze", detail)
        return Response(status_code=204)

    def outbox(self, request: Request) -> Response:
        """Every sink: whether it works, what waits for it, and what became of the rest since the service started."""
        asking(request)
        parameters(request)
        return encoded(self._service.deliveries.states)

    async def test(self, request: Request) -> Response:
        """Send a test message to a sink, and wait for what becomes of it."""
        asking(request, "operate")
        try:
            asked = self._service.deliveries.send_test(request.path_params["sink"])
        except LookupError:
            raise Problem(404, f"there is no sink {request.path_params['sink']!r}") from None
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(asked), TEST_S)
        except TimeoutError:
            return encoded(Tried(delivered=False, why=f"no answer within {TEST_S:.0f} s"))
        return encoded(Tried(delivered=outcome.result == "delivered", why=outcome.why))

    def incidents(self, request: Request) -> Response:
        """What befell the service, newest first."""
        asking(request)
        parameters(request)
        return encoded(list_incidents(self._service.store.read))

    def _camera(self, request: Request) -> str:
        camera: str = request.path_params["camera"]
        if camera not in self._service.feeds:
            raise Problem(404, f"there is no camera {camera!r}")
        return camera

    def _audit(self, who: str, what: str, detail: Mapping[str, object]) -> None:
        now_us = time.time_ns() // 1000
        with self._service.store.write() as transaction:
            people.audit(transaction, who, what, detail, now_us=now_us)
