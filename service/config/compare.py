"""What differs between two configurations, and what of one may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ovavel.runtime.reporting.redaction import redacted
from ovavel.service.config.site import Site

__all__ = ["changes", "shown"]

_SECRET = frozenset({"address", "secret", "password"})
_LISTS = {"camera": "camera", "sink": "sink"}


def changes(old: Site, new: Site) -> list[str]:
    """What is different in `new`, a line each: fields, and cameras and sinks by their ids. No value is in it."""
    was, now = (msgspec.to_builtins(each) for each in (old, new))
    found = [f"{name} changed" for name in now if name not in _LISTS and was.get(name) != now[name]]
    for name, what in _LISTS.items():
        before, after = ({each["id"]: each for each in site.get(name, ())} for site in (was, now))
        found += [f"{what} {each} added" for each in after if each not in before]
        found += [f"{what} {each} removed" for each in before if each not in after]
        for each in after:
            if each in before and before[each] != after[each]:
                fields = [key for key in after[each] if before[each].get(key) != after[each][key]]
                found.append(f"{what} {each} changed: {', '.join(fields)}")
    return found


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
