"""All routes, and what is answered where one of them fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount, Route
from starlette.staticfiles import StaticFiles

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.access.identify import Access
from ovavel.service.web.access.login import Login
from ovavel.service.web.access.people import People
from ovavel.service.web.answers import IDENTITY, Problem, problem
from ovavel.service.web.api import API
from ovavel.service.web.controls import Controls
from ovavel.service.web.description.openapi import Descriptions
from ovavel.service.web.events.api import EventsAPI
from ovavel.service.web.events.deletion import EventsDeletion
from ovavel.service.web.events.page import EventsPages
from ovavel.service.web.evidence import EvidenceAPI
from ovavel.service.web.pages import Pages
from ovavel.service.web.preview.api import PreviewAPI
from ovavel.service.web.preview.page import PreviewPage
from ovavel.service.web.search.api import SearchAPI
from ovavel.service.web.search.page import SearchPage
from ovavel.service.web.search.questions import Questions
from ovavel.service.web.settings import Settings
from ovavel.service.web.templates import Templates
from ovavel.service.web.words.api import WordsAPI
from ovavel.service.web.words.page import WordsPage

__all__ = ["make_app"]

_TITLES = {404: "there is nothing at this address", 405: "this address does not take that method"}


def make_app(service: Service, api: API, access: Access, reloader: Reloader | None = None) -> Starlette:
    """The application of one site, without its guard."""
    model = service.bundle.manifest.model
    templates = Templates(site=service.site.name, model=model.name, licence=model.licence)

    def answer(request: Request, status: int, title: str, headers: Any = None) -> Response:
        path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        wants_page = "text/html" in request.headers.get("accept", "") and not path.startswith("/api/")
        if not wants_page or request.scope.get(IDENTITY) is None:
            return problem(status, title, headers)
        return templates.answer(request, "problem.html", title=str(status), status=status, why=title)

    def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, Problem):
            return answer(request, error.status, error.title, error.headers)
        if isinstance(error, HTTPException):
            headers = {"allow": _allowed(app, request)} if error.status_code == 405 else error.headers
            return answer(request, error.status_code, _TITLES.get(error.status_code, error.detail), headers)
        if isinstance(error, OvavelError):
            return answer(request, 503, redacted(str(error)))
        return answer(request, 500, "the service made a mistake; its log says which")

    settings, words = Settings(service, templates, reloader), WordsAPI(service, reloader)
    questions = Questions(service)
    described = [
        *EvidenceAPI(service).routes,
        *api.routes,
        *Controls(service).routes,
        *EventsAPI(service).routes,
        *EventsDeletion(service, api.deleted).routes,
        *People(service.store, access).routes,
        *settings.routes,
        *words.routes,
        *SearchAPI(service, questions).routes,
        *PreviewAPI(service, questions).routes,
    ]
    app = Starlette(
        routes=[
            *described,
            *Descriptions(described, cookie=access.cookie).routes,
            *Login(service.store, access, templates, base_path=service.site.base_path).routes,
            *EventsPages(service, templates).routes,
            *WordsPage(service, words, templates, may_change=reloader is not None).routes,
            *SearchPage(service, templates, may_change=reloader is not None).routes,
            *PreviewPage(service, templates).routes,
            *Pages(service, api, templates).routes,
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        exception_handlers=dict.fromkeys((Problem, HTTPException, OvavelError, Exception), failed),
    )
    app.router.redirect_slashes = False  # it would lead to whatever the header Host says
    return app


def _allowed(app: Starlette, request: Request) -> str:
    """The methods of an address, which may have several routes."""
    found = [
        each for each in app.routes if isinstance(each, Route) and each.matches(request.scope)[0] is not Match.NONE
    ]
    return ", ".join(sorted({method for each in found for method in each.methods or ()}))
