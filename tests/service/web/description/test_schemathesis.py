"""The API against its own description: generated requests, good and bad ones, of somebody who may do everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from support.served import served

from ovavel.service.store import people

schemathesis = pytest.importorskip("schemathesis", reason="it makes requests from the description")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

pytestmark = pytest.mark.timeout(300)


def test_answers_are_as_described(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        with running.service.store.write() as transaction:
            token = people.add_token(transaction, "test", "admin", now_us=0)
        headers = {"Authorization": f"Bearer {token}"}
        address = f"http://127.0.0.1:{running.port}/api/v1/openapi.json"
        # A stream of news has no end that could be checked.
        schema = schemathesis.openapi.from_url(address, headers=headers).exclude(path="/api/v1/stream")
        operations = [each.ok() for each in schema.get_all_operations()]
        assert len(operations) > 20
        for operation in operations:
            _try(operation, headers)


def _try(operation: Any, headers: dict[str, str]) -> None:
    @settings(
        max_examples=6,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answers(case: Any) -> None:
        # That a name has visible characters only is more than a schema says.
        named = {"POST /api/v1/users", "POST /api/v1/tokens"}
        beyond = [checks.positive_data_acceptance] if f"{case.method} {case.path}" in named else []
        case.call_and_validate(headers=headers, timeout=60, excluded_checks=beyond)

    answers()
