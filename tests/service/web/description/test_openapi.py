"""The description of the API says what the API does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from support.served import USERS, Served, served
from support.web import ask

from ovavel.service.store.people import ROLES
from ovavel.service.web.description.openapi import api_routes
from ovavel.service.web.description.operations import OPERATIONS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def document(running: Served) -> Any:
    answer = ask(running.port, "/api/v1/openapi.json", **running.headers("vera"))
    assert answer.status == 200
    return answer.json


def routes(running: Served) -> set[tuple[str, str]]:
    app = running.server.app
    assert isinstance(app, Starlette)
    return {(method, path) for method, path, _ in api_routes(app.routes)}


def test_every_route_is_described_and_everything_described_is_a_route(running: Served, document: Any) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == routes(running)
    assert set(OPERATIONS) == described, "service/web/description/operations.py describes each route"
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all({"401", "default"} <= each["responses"].keys() for each in operations)


def test_references_lead_somewhere(document: Any) -> None:
    named = set(re.findall(r"'#/components/schemas/([^']+)'", repr(document)))
    assert named <= document["components"]["schemas"].keys()
    assert {"EventBody", "EventPage", "Problem", "NewUser"} <= named


def test_the_schemas_of_files_and_events_are_there(running: Served) -> None:
    vera = running.headers("vera")
    assert "EventBody" in ask(running.port, "/schema/events.json", **vera).text
    assert ask(running.port, "/schema/config.json", **vera).json["$ref"].endswith("/Site")
    assert ask(running.port, "/schema/events.json").status == 401


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_each_role_may_do_what_it_may(running: Served, method: str, path: str) -> None:
    operation = OPERATIONS[method, path]
    if (method, operation.media) == ("GET", "text/event-stream"):
        method = "HEAD"  # it has no end
    target = re.sub(r"\{\w+\}", "nobody", path)
    assert ask(running.port, target, method).status == 401, "who is unknown may do nothing"
    for name, role in USERS.items():
        status = ask(running.port, target, method, **running.headers(name)).status
        if ROLES.index(role) < ROLES.index(operation.role):
            assert status == 403, role
        else:
            assert status not in (401, 403), role
    assert ask(running.port, target, method, Authorization="Bearer nonsense").status == 401


def test_addresses_come_from_the_site_file_alone(document: Any) -> None:
    """Whoever has a role cannot make the service send anything anywhere."""
    fields = set()
    for methods in document["paths"].values():
        for operation in methods.values():
            fields |= {each["name"] for each in operation.get("parameters", ())}
            if "requestBody" in operation:
                (content,) = operation["requestBody"]["content"].values()
                schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                fields |= schema["properties"].keys()
    assert fields
    assert not fields & {"address", "url", "source", "path", "file", "host", "secret", "callback"}
