"""The description of the API (OpenAPI 3.1), made from its routes, and the JSON schemas of files and events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ovavel.service.config.read import site_schema
from ovavel.service.store.events import EventBody
from ovavel.service.web.answers import encoded, parameters
from ovavel.service.web.description.operations import OPERATIONS, Operation, Problem

__all__ = ["Descriptions", "api_routes"]

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_SAFE = frozenset({"GET", "HEAD"})
_TEMPLATE = "#/components/schemas/{name}"
_TITLES = {
    202: "It is not finished yet; ask again.",
    400: "A parameter makes no sense.",
    401: "Log in, or give a token.",
    403: "The role does not suffice, or a page of another site asks.",
    404: "There is no such thing.",
    408: "The body took too long.",
    409: "It contradicts what there is.",
    410: "It was removed.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    416: "There is no such part.",
    422: "The body does not fit.",
    429: "Too many attempts; wait.",
    503: "Not now; try again later.",
}


class Descriptions:
    """Answers what the API and its data look like."""

    def __init__(self, routes: Iterable[BaseRoute], *, cookie: str) -> None:
        """Describe these, and its own; `cookie` is the name of that of a session."""
        self._document = _document([*routes, *self.routes], cookie)

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/openapi.json", self.openapi),
            Route("/schema/events.json", self.events),
            Route("/schema/config.json", self.config),
        ]

    def openapi(self, request: Request) -> Response:
        """Return this description."""
        parameters(request)
        return encoded(self._document)

    def events(self, request: Request) -> Response:
        """JSON schema of an event, as the log, the API and every sink have it."""
        parameters(request)
        return encoded(msgspec.json.schema(EventBody))

    def config(self, request: Request) -> Response:
        """JSON schema of a site file."""
        parameters(request)
        return Response(site_schema(), media_type="application/json")


def api_routes(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, Route]]:
    """Method, path without converters, and route of each operation of the API."""
    for route in routes:
        if isinstance(route, Route) and route.path.startswith("/api/"):
            path = _PARAMETER.sub(r"{\1}", route.path)
            yield from ((method, path, route) for method in sorted(route.methods or ()) if method != "HEAD")


def _document(routes: Iterable[BaseRoute], cookie: str) -> dict[str, Any]:
    found = [
        (method, path, route, OPERATIONS.get((method, path), Operation())) for method, path, route in api_routes(routes)
    ]
    types = [each for *_, operation in found for each in (operation.answer, operation.body) if each is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_TEMPLATE)
    known = dict(zip(map(repr, types), schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, route, operation in found:
        paths.setdefault(path, {})[method.lower()] = _described(method, path, route, operation, known)
    components["Problem"] |= {"additionalProperties": True}  # as RFC 9457 has it
    return {
        "openapi": "3.1.0",
        "info": {"title": "ovavel serve", "version": version("ovavel"), "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "../.."}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
            },
        },
    }


def _described(method: str, path: str, route: Route, operation: Operation, known: dict[str, Any]) -> dict[str, Any]:
    inside = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    asked = [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in operation.query.items()]
    changes = method not in _SAFE
    errors = {401, *operation.errors}
    errors |= {400} if not changes else {403}
    errors |= {403} if operation.role != "view" else set()
    errors |= {404} if inside else set()
    errors |= {408, 413, 415, 422} if operation.body else set()
    good: dict[str, Any] = {"description": "Done."}
    if operation.answer is not None:
        good["content"] = {"application/json": {"schema": known[repr(operation.answer)]}}
    elif operation.media != "application/json":
        good["content"] = {operation.media: {}}
    answers = {str(operation.status): good}
    if operation.media == "video/mp4" or 416 in operation.errors:
        answers["206"] = {"description": "Parts of it."}
    answers |= {str(status): _failure(_TITLES[status]) for status in sorted(errors)}
    text = (route.endpoint.__doc__ or path).strip().partition("\n\n")[0]
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}{re.sub(r'[^a-z]+', '_', path.removeprefix('/api/v1').lower()).rstrip('_')}",
        "summary": " ".join(text.split()),
        "description": f"For the role {operation.role} and those above it.",
        "responses": answers | {"default": _failure("Something else.")},
    }
    if inside or asked:
        described["parameters"] = inside + asked
    if operation.body:
        content = {"application/json": {"schema": known[repr(operation.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _failure(title: str) -> dict[str, Any]:
    return {
        "description": title,
        "content": {"application/problem+json": {"schema": {"$ref": _TEMPLATE.format(name="Problem")}}},
    }
