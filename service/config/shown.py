"""What of a configuration may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ovavel.runtime.reporting.redaction import redacted
from ovavel.service.config.site import Site

__all__ = ["shown"]

_SECRET = frozenset({"address", "secret", "password"})


def shown(site: Site) -> dict[str, Any]:
    """The configuration without passwords; a secret is only shown by the file or the variable it is read from."""
    found: dict[str, Any] = msgspec.to_builtins(site)
    return {name: _shown(name, value) for name, value in found.items()}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(key, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(name, each) for each in value]
    if not isinstance(value, str) or value.startswith(("@", "env:")):
        return value
    return "***" if name in _SECRET and value else redacted(value)
