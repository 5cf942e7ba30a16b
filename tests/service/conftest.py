from __future__ import annotations

from importlib.util import find_spec

import pytest

_MISSING = [name for name in ("apsw", "jinja2", "prometheus_client", "starlette", "uvicorn") if find_spec(name) is None]

# Modules of the service import these at once, so its tests cannot even be collected without them.
collect_ignore_glob = ["*/*"] if _MISSING else []


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"tests of the service are left out: {', '.join(_MISSING)} not installed (extra serve)"] if _MISSING else []
