"""The names that are searched for, in the API: what they found, and one more or one less."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.errors import BundleError, InputError, OvavelError, VocabularyError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.service.names.editor import KnownNameError
from ovavel.service.store import people
from ovavel.service.store.queries import label_counts
from ovavel.service.watch.economy.site import check_names_may_change
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, encoded, parameters, read_json

__all__ = ["LabelFacts", "NewLabel", "WordsAPI", "why_not"]

_DAY_US = 86_400_000_000


class LabelFacts(Struct, kw_only=True):
    """A name that is searched for, and how many events it had."""

    label: str
    day: int
    week: int


class NewLabel(Struct, kw_only=True, forbid_unknown_fields=True):
    """A name to search for from now on."""

    label: Annotated[str, Meta(max_length=1000)]


class WordsAPI:
    """Routes of /api/v1/labels."""

    def __init__(self, service: Service, reloader: Reloader | None) -> None:
        """`reloader`: changes the bundle's names and brings them into force; None where there is none."""
        self._service, self._reloader = service, reloader

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/labels", self.labels),
            Route("/api/v1/labels", self.add, methods=["POST"]),
            Route("/api/v1/labels/{label:path}", self.remove, methods=["DELETE"]),
        ]

    def labels(self, request: Request) -> Response:
        """The names that are searched for, with their events of the last day and week."""
        parameters(request)
        return encoded(self.label_list())

    async def add(self, request: Request) -> Response:
        """Search for one more name from now on; no camera is interrupted. Takes as long as the text encoder does."""
        me = asking(request, "admin")
        new = await read_json(request, NewLabel)
        label = await run_in_threadpool(self._add, me.name, new.label)
        return encoded(LabelFacts(label=label, day=0, week=0), 201)

    def remove(self, request: Request) -> Response:
        """Search for a name no longer; its events of the past stay. No camera is interrupted."""
        me, label = asking(request, "admin"), request.path_params["label"]
        parameters(request)
        if label not in self._service.bundle.vocabulary.names[:-1]:
            raise Problem(404, f"there is no name {label!r}")
        if wanted := [sink.id for sink in self._service.site.sink if label in sink.labels]:
            raise Problem(409, f"the sink {wanted[0]!r} has it among its labels; change the site file first")
        reloader = self._known()
        self._change(lambda: reloader.editor.remove(label))
        self._in_force(reloader, me.name, "remove name", label)
        return Response(status_code=204)

    def label_list(self) -> list[LabelFacts]:
        """The names that are searched for, with their events of the last day and week."""
        now_us, read = time.time_ns() // 1000, self._service.store.read
        day, week = (label_counts(read, from_us=now_us - days * _DAY_US) for days in (1, 7))
        return [
            LabelFacts(label=label, day=day.get(label, 0), week=week.get(label, 0))
            for label in self._service.bundle.vocabulary.names[:-1]
        ]

    def _add(self, who: str, label: str) -> str:
        reloader = self._known()
        added = self._change(lambda: reloader.editor.add(label))
        self._in_force(reloader, who, "add name", added)
        return added

    def _change(self, change: Callable[[], str | None]) -> str:
        try:
            return change() or ""
        except OvavelError as error:
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 503)
            raise Problem(status, why_not(error)) from error

    def _in_force(self, reloader: Reloader, who: str, what: str, label: str) -> None:
        try:
            reloader.read_names()
        except OvavelError as error:
            why = f"the bundle is changed, but not in force yet: {why_not(error)}"
            raise Problem(503, f"{why}; then read the site file again") from error
        with self._service.store.write() as transaction:
            people.audit(transaction, who, what, {"name": label}, now_us=time.time_ns() // 1000)

    def _known(self) -> Reloader:
        if self._reloader is None:
            raise Problem(409, "this service was not started from a site file")
        try:
            check_names_may_change(self._service.site)
        except InputError as error:
            raise Problem(409, why_not(error)) from error
        return self._reloader


_STATUS: dict[type[OvavelError], int] = {
    KnownNameError: 409,
    VocabularyError: 422,
    BundleError: 409,
    InputError: 503,
}


def why_not(error: OvavelError) -> str:
    """An error in one line, without secrets."""
    return one_line(redacted(str(error)))
