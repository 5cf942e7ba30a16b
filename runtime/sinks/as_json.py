"""Values as JSON: what records, reports and tables have in common."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import numpy as np

from ovavel.runtime.reporting.text import INVISIBLE, encodable

__all__ = ["number", "to_json_bytes"]


def to_json_bytes(value: Any, *, indent: int = 0) -> bytes:
    """Write `value` as JSON in UTF-8, on one line or with `indent`.

    What steers a terminal, turns a line around or cannot be seen is written as `\\uXXXX`, so that the line can be
    printed unchanged; a reader gets the same text back. Bytes of file names that are not UTF-8 become `\\xe4`.
    """
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_encodable(msgspec.to_builtins(value)))
    text = INVISIBLE.sub(_escaped, data.decode())
    return (msgspec.json.format(text, indent=indent) if indent else text).encode()


def _encodable(value: Any) -> Any:
    """`value`, of built-in types, with every text in it as in `encodable`."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def number(value: float, digits: int = 6) -> float | None:
    """Round `value` to what float32 can distinguish; None where it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None
