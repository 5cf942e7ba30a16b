"""Which libraries of the extra `serve` are not installed; nothing of the service is imported here."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDED = ("anyio", "apsw", "argon2", "h11", "httpx2", "jinja2", "paho", "prometheus_client", "starlette", "uvicorn")
MISSING = [name for name in _NEEDED if find_spec(name) is None]
