"""The service's log: a line each on standard error, as text or as JSON. Addresses are written without their secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line

__all__ = ["LogFormat", "set_up_logs"]

LogFormat = Literal["text", "json"]

FIELDS = ("camera", "cause")
"""What records carry besides their message, by `extra`."""


def set_up_logs(kind: LogFormat) -> None:
    """Send the records of the whole process to standard error, from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSON() if kind == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("ovavel").setLevel(logging.INFO)


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        message = f"{message}: {type(error).__name__}: {error}"
    return one_line(redacted(message))


class _Text(logging.Formatter):
    """`2026-11-29T10:00:00Z warning gate: camera offline …`. A journal adds its own time; a file needs ours."""

    def format(self, record: logging.LogRecord) -> str:
        camera = f" {record.camera}:" if hasattr(record, "camera") else ""
        return f"{_time(record, 'seconds')} {record.levelname.lower()}{camera} {_message(record)}"


class _JSON(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and the fields of `FIELDS` that the record has."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": _time(record, "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        found |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        return json.dumps(found, ensure_ascii=False)


def _time(record: logging.LogRecord, precision: str) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
