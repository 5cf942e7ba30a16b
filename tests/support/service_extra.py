"""Which libraries of the extra `serve` are not installed; nothing of the service is imported here."""

from __future__ import annotations

from importlib.util import find_spec

MISSING = [name for name in ("apsw", "jinja2", "prometheus_client", "starlette", "uvicorn") if find_spec(name) is None]
