"""The API is what its description says, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.service import CLIP, news, run_facts, site
from support.web import ask

from ovavel.service.config.site import Camera
from ovavel.service.store import cameras, events
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with Service(site(tmp_path_factory.mktemp("site"), Camera(id="one", source=CLIP))) as service:
        with service.store.write() as transaction:
            cameras.open_run(transaction, run_facts("run-1", "one"))
            for number in (1, 2):
                events.record(transaction, news("start", number), event_id=f"e{number}", now_us=0, sinks=())
                events.record(transaction, news("end", number), event_id="", now_us=0, sinks=())
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield server.port
        finally:
            server.stop()


def test_every_address_is_described(port: int) -> None:
    document = ask(port, "/api/v1/openapi.json").json
    assert document["openapi"] == "3.1.0"
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert all(each["summary"] for each in operations)
    assert len({each["operationId"] for each in operations}) == len(operations) >= 25
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text


@pytest.mark.slow
def test_whatever_is_asked_the_answer_is_one_of_those_described(port: int) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="Schemathesis makes the requests")
    import hypothesis
    from schemathesis.specs.openapi.checks import response_schema_conformance

    base = f"http://127.0.0.1:{port}"
    document = ask(port, "/api/v1/openapi.json").json
    for path in ("/api/v1/stream", "/api/v1/users", "/api/v1/tokens"):
        del document["paths"][path]  # one does not end, and with a user everybody would have to log in
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=base)

    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=15, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.seed(0)
        @hypothesis.given(case=operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(base_url=base)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0] == "application/problem+json", case.as_curl_command()
            case.validate_response(answer, checks=[response_schema_conformance])

        check()
    assert ask(port, "/healthz").status == 200
