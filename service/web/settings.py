"""Words and Settings: the names that are searched for; the configuration, its check, sinks, and people."""

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
from ovavel.service.config.read import rules_of
from ovavel.service.config.shown import shown
from ovavel.service.store import people
from ovavel.service.store.queries import label_counts
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, encoded, parameters
from ovavel.service.web.templates import Templates

__all__ = ["Checked", "LabelFacts", "Reloaded", "Settings"]

_DAY_US = 86_400_000_000


class LabelFacts(Struct, kw_only=True):
    """A name that is searched for, and how many events it had."""

    label: str
    day: int
    week: int


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
    """The pages Words and Settings, and what they ask."""

    def __init__(self, service: Service, templates: Templates, reloader: Reloader | None) -> None:
        """`reloader`: reads the site file that the service runs; None where there is none to read again."""
        self._service, self._templates, self._reloader = service, templates, reloader

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/words", self.words),
            Route("/settings", self.settings),
            Route("/api/v1/labels", self.labels),
            Route("/api/v1/config", self.config),
            Route("/api/v1/config:check", self.check, methods=["POST"]),
            Route("/api/v1/config:reload", self.reload, methods=["POST"]),
        ]

    def labels(self, request: Request) -> Response:
        """The names that are searched for, with their events of the last day and week."""
        parameters(request)
        return encoded(self._labels())

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

    def words(self, request: Request) -> Response:
        """The vocabulary, what it found, and how to change it."""
        parameters(request)
        bundle = self._service.bundle
        calibration = bundle.manifest.calibration
        if calibration and not calibration.fits(bundle.vocabulary.names):
            calibration = None
        return self._templates.answer(
            request,
            "words.html",
            title="Words",
            labels=self._labels(),
            background=bundle.vocabulary.background,
            version=bundle.vocabulary.version,
            bundle=bundle.path,
            calibrated=calibration is not None,
            margins=[
                (each.name or each.id, *rules_of(each).margins(calibration), each.min_duration_s, each.bridge_s)
                for each in self._service.site.camera
            ],
            text_encoder=_has_text_encoder(self._service),
        )

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

    def _labels(self) -> list[LabelFacts]:
        now_us, read = time.time_ns() // 1000, self._service.store.read
        day, week = (label_counts(read, from_us=now_us - days * _DAY_US) for days in (1, 7))
        return [
            LabelFacts(label=label, day=day.get(label, 0), week=week.get(label, 0))
            for label in self._service.bundle.vocabulary.names[:-1]
        ]


def _has_text_encoder(service: Service) -> bool:
    try:
        for graph in service.bundle.manifest.encoders.text_graphs:
            service.bundle.graph(graph)
    except OvavelError:
        return False
    return True
