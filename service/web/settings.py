"""Settings: the configuration, its check, sinks, and people."""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.service.config.changes import Changes
from ovavel.service.config.shown import shown
from ovavel.service.store import people
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, encoded, parameters
from ovavel.service.web.templates import Templates

__all__ = ["Checked", "Reloaded", "Settings"]


class Checked(Struct, kw_only=True):
    """What the site file says now."""

    ok: bool
    text: str
    """What is wrong with it, or what is different from what runs."""
    changes: Changes | None = None
    """What reading it again would change; None where something is wrong."""


class Reloaded(Struct, kw_only=True):
    """What the site file has changed that was read again."""

    text: str
    changes: Changes


class Settings:
    """The page Settings, and what it asks."""

    def __init__(self, service: Service, templates: Templates, reloader: Reloader | None) -> None:
        """`reloader`: reads the site file that the service runs; None where there is none to read again."""
        self._service, self._templates, self._reloader = service, templates, reloader

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/settings", self.settings),
            Route("/api/v1/config", self.config),
            Route("/api/v1/config:check", self.check, methods=["POST"]),
            Route("/api/v1/config:reload", self.reload, methods=["POST"]),
        ]

    def config(self, request: Request) -> Response:
        """The configuration that runs, without secrets."""
        asking(request, "admin")
        parameters(request)
        return encoded(shown(self._service.site))

    def check(self, request: Request) -> Response:
        """Read the site file again and say what is wrong or different; nothing changes."""
        asking(request, "admin")
        parameters(request)
        try:
            plan = self._known().check()
        except OvavelError as error:
            return encoded(Checked(ok=False, text=one_line(redacted(str(error)))))
        return encoded(Checked(ok=True, text=f"well-formed; {plan.text}", changes=plan))

    def reload(self, request: Request) -> Response:
        """Read the site file again and bring it into force: all of it, or nothing where something is wrong."""
        me = asking(request, "admin")
        parameters(request)
        try:
            plan = self._known().reload()
        except OvavelError as error:
            raise Problem(422, one_line(redacted(str(error)))) from error
        with self._service.store.write() as transaction:
            detail = {"changes": plan.text}
            people.audit(transaction, me.name, "reload configuration", detail, now_us=time.time_ns() // 1000)
        return encoded(Reloaded(text=plan.text, changes=plan))

    def _known(self) -> Reloader:
        if self._reloader is None:
            raise Problem(409, "this service was not started from a site file")
        return self._reloader

    def settings(self, request: Request) -> Response:
        """For admins: the configuration and who may do what. For everybody: their own password."""
        me = asking(request)
        parameters(request)
        read = self._service.store.read
        if not me.may("admin"):
            return self._templates.answer(request, "settings.html", title="Settings")
        return self._templates.answer(
            request,
            "settings.html",
            title="Settings",
            config=msgspec.json.format(msgspec.json.encode(shown(self._service.site)), indent=2).decode(),
            file=self._service.file,
            rejected=self._service.rejected,
            sinks=self._service.deliveries.states,
            users=people.users(read),
            tokens=people.tokens(read),
            roles=people.ROLES,
            audit=[
                (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.utc_us / 1e6)), each)
                for each in people.read_audit(read, limit=50)
            ],
        )
