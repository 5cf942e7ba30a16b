"""How times, names and counts are written down."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["clock", "counts", "encodable", "names_told", "one_line", "seconds", "timestamp"]

_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters (C0 and C1), line and paragraph separators, direction overrides, and what XML 1.0 forbids
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]+")


def encodable(text: str) -> str:
    """`text` with each byte of a file name that is no UTF-8 replaced by U+FFFD, so that it can be encoded."""
    return _SURROGATE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """`text` on one line, without characters that would steer a terminal or break an XML file."""
    return " ".join(_UNPRINTABLE.sub(" ", encodable(text)).split())


def timestamp(time_s: float, mark: str = ".") -> str:
    """Format as `HH:MM:SS.mmm` to the nearest millisecond; hours take the digits they need, negatives become 0."""
    whole_s, milliseconds = divmod(max(0, round(time_s * 1000)), 1000)
    return f"{whole_s // 3600:02}:{whole_s // 60 % 60:02}:{whole_s % 60:02}{mark}{milliseconds:03}"


def clock(time_s: float, decimals: int = 1) -> str:
    """Format as `MM:SS.t`, or `H:MM:SS.t` from one hour on."""
    unit = 10**decimals
    whole_s, rest = divmod(max(0, round(time_s * unit)), unit)
    hours = f"{whole_s // 3600}:" if whole_s >= 3600 else ""
    fraction = f".{rest:0{decimals}}" if decimals else ""
    return f"{hours}{whole_s // 60 % 60:02}:{whole_s % 60:02}{fraction}"


def seconds(duration_s: float) -> str:
    """Format as `1.5 s`."""
    return f"{duration_s:.1f} s"


def names_told(classes: int) -> str:
    """Say how many names a vocabulary of C `classes`, the background among them, has: `60 names and the background`."""
    return f"{classes - 1} {'name' if classes == 2 else 'names'} and the background"


def counts(by_cause: Mapping[str, float], unit: str = "") -> str:
    """Format as `3 late, 1 camera lost`, largest first, or `none`."""
    ordered = sorted(by_cause.items(), key=lambda item: (-item[1], item[0]))
    told = (
        f"{count if isinstance(count, int) else round(count, 1)}{unit} {one_line(cause)}" for cause, count in ordered
    )
    return ", ".join(told) or "none"
