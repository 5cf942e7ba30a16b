"""Times as people write and read them: those of this machine's time zone, unless they say otherwise."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from ovavel.runtime.errors import UsageError

__all__ = ["camera_at", "parse_time", "shown_time"]


def parse_time(text: str, flag: str) -> datetime:
    """Read an ISO 8601 date or time; without an offset it is of this machine's time zone.

    Raises:
        UsageError: it is none; names `flag`.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{flag} takes a date or time such as 2026-11-29, 2026-11-29T14:30 or 2026-11-29T13:30:00Z, not {text!r}"
        ) from error


def camera_at(text: str, flag: str) -> tuple[str, int]:
    """Read CAMERA@TIME, as in yard@2026-11-29T14:30:05; the camera's name may contain @ itself.

    Raises:
        UsageError: it is none; names `flag`.
    """
    found = re.fullmatch(r"(.+)@([^@]+)", text, re.DOTALL)
    if not found:
        raise UsageError(f"{flag} takes CAMERA@TIME, such as yard@2026-11-29T14:30:05, not {text!r}")
    return found[1], math.floor(parse_time(found[2], flag).timestamp())


def shown_time(utc_s: float) -> str:
    """Format a Unix time in this machine's time zone, with the offset; `parse_time` reads it."""
    try:
        return datetime.fromtimestamp(utc_s, UTC).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{utc_s:.0f} s after 1970"
