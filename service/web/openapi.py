"""`/api/v1/openapi.json`: the API for programs, made from the routes and the types of what they take and give."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ovavel.service.delivery.deliveries import SinkState
from ovavel.service.store.assets import Asset
from ovavel.service.store.events import EventBody
from ovavel.service.store.people import AuditEntry, Identity, TokenFacts, UserFacts
from ovavel.service.store.queries import EventPage
from ovavel.service.store.seconds import Why
from ovavel.service.watch.board import Second
from ovavel.service.web.access.people import AddedToken, NewPassword, NewToken, NewUser
from ovavel.service.web.answers import encoded, parameters
from ovavel.service.web.controls import Enable, Snooze, Tried
from ovavel.service.web.events.api import FILTERS, VERDICTS, BulkChange, Changed, EventChange
from ovavel.service.web.settings import Checked, LabelFacts

__all__ = ["OpenAPI"]


class _Problem(Struct):
    """An error (RFC 9457)."""

    type: str
    status: int
    title: str


class _What(NamedTuple):
    """What an address takes and gives."""

    gives: Any = None
    """Type of the JSON it answers with; None: another kind of answer, or none."""
    takes: Any = None
    query: tuple[str, ...] = ()
    status: int = 200


_NAME = {"type": "string", "minLength": 1}
_WHOLE = {"type": "integer", "minimum": -(2**63) + 1, "maximum": 2**63 - 1}
_QUERY: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("from", "to"), _WHOLE),
    "limit": {"type": "integer", "minimum": 1, "maximum": 500},
    "before": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "state": {"enum": ["open", "ended", "retracted"]},
    "verdict": {"enum": list(VERDICTS)},
    "reviewed": {"enum": ["true", "false"]},
    "pinned": {"enum": ["true", "false"]},
}
_WHAT: dict[tuple[str, str], _What] = {
    ("GET", "/api/v1/cameras/{camera}/seconds"): _What(tuple[Second, ...]),
    ("GET", "/api/v1/events"): _What(EventPage, query=(*FILTERS, "cursor", "limit")),
    ("POST", "/api/v1/events:bulk"): _What(Changed, BulkChange),
    ("GET", "/api/v1/events/{event}"): _What(EventBody),
    ("PATCH", "/api/v1/events/{event}"): _What(EventBody, EventChange),
    ("GET", "/api/v1/events/{event}/seconds"): _What(tuple[Why, ...]),
    ("GET", "/api/v1/events/{event}/assets"): _What(tuple[Asset, ...]),
    ("GET", "/api/v1/export"): _What(query=FILTERS),
    ("GET", "/api/v1/labels"): _What(tuple[LabelFacts, ...]),
    ("POST", "/api/v1/config:check"): _What(Checked),
    ("GET", "/api/v1/outbox"): _What(tuple[SinkState, ...]),
    ("POST", "/api/v1/outbox/{sink}/test"): _What(Tried),
    ("POST", "/api/v1/cameras/{camera}/enable"): _What(takes=Enable, status=204),
    ("POST", "/api/v1/cameras/{camera}/snooze"): _What(takes=Snooze, status=204),
    ("GET", "/api/v1/me"): _What(Identity),
    ("POST", "/api/v1/me/password"): _What(takes=NewPassword, status=204),
    ("GET", "/api/v1/users"): _What(tuple[UserFacts, ...]),
    ("POST", "/api/v1/users"): _What(Identity, NewUser, status=201),
    ("DELETE", "/api/v1/users/{name}"): _What(status=204),
    ("GET", "/api/v1/tokens"): _What(tuple[TokenFacts, ...]),
    ("POST", "/api/v1/tokens"): _What(AddedToken, NewToken, status=201),
    ("DELETE", "/api/v1/tokens/{name}"): _What(status=204),
    ("GET", "/api/v1/audit"): _What(tuple[AuditEntry, ...], query=("before",)),
}


class OpenAPI:
    """Describes routes."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        described = [each for each in routes if isinstance(each, Route) and each.path.startswith("/api/")]
        kinds = [kind for what in _WHAT.values() for kind in (what.gives, what.takes) if kind is not None]
        schemas, components = msgspec.json.schema_components(
            [*kinds, _Problem], ref_template="#/components/schemas/{name}"
        )
        self._schemas = dict(zip(map(repr, kinds), schemas, strict=False))
        self._error = schemas[-1]
        paths: dict[str, dict[str, Any]] = {}
        for route in described:
            path = re.sub(r":path\}", "}", route.path)
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                paths.setdefault(path, {})[method.lower()] = self._operation(method, path, route)
        self.document = {
            "openapi": "3.1.0",
            "info": {"title": "ovavel serve", "version": version("ovavel")},
            "servers": [{"url": "../.."}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}, {}],
        }

    @property
    def routes(self) -> list[Route]:
        """Where it is found."""
        return [Route("/api/v1/openapi.json", self.answer)]

    def answer(self, request: Request) -> Response:
        """The API as OpenAPI describes it."""
        parameters(request)
        return encoded(self.document)

    def _operation(self, method: str, path: str, route: Route) -> dict[str, Any]:
        what = _WHAT.get((method, path), _What())
        content = {"application/json": {"schema": self._schemas[repr(what.gives)]}} if what.gives is not None else None
        found: dict[str, Any] = {
            "summary": (inspect.getdoc(route.endpoint) or "").partition("\n")[0],
            "operationId": f"{method.lower()}{re.sub('[^A-Za-z0-9]+', '-', path)}",
            "parameters": [
                *(_parameter("path", name, _NAME) for name in re.findall(r"{(\w+)}", path)),
                *(_parameter("query", name, _QUERY.get(name, {"type": "string"})) for name in what.query),
            ],
            "responses": {
                str(what.status): {"description": "done", **({"content": content} if content else {})},
                "default": {
                    "description": "it cannot be done; the title says why",
                    "content": {"application/problem+json": {"schema": self._error}},
                },
            },
        }
        if what.takes is not None:
            schema = self._schemas[repr(what.takes)]
            found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return found


def _parameter(where: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
