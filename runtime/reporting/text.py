"""Format times, names, texts and counts.

Names come from users, file systems and streams, so they may contain anything: escape sequences, line breaks, marks that
reverse the text direction, bytes that are not UTF-8. Each passes through one function, by where it is written:

- `shown_name` for a name (a path, a label) and `one_line` for a sentence that may contain names: on a terminal, in a
  line of text, a table, a subtitle;
- `markup` for HTML and SVG;
- `cell` for a table that a spreadsheet may open;
- `as_json.to_json_bytes` for JSON, whose strings `encodable` makes valid UTF-8.

`console` applies the first to everything printed with rich, as a second line of defence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

__all__ = [
    "INVISIBLE",
    "cell",
    "clock",
    "counts",
    "encodable",
    "markup",
    "names_text",
    "one_line",
    "quoted",
    "seconds",
    "shown_name",
    "spelled_out",
    "timestamp",
]

INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, line ends and ESC among them
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # shorthand and musical notation
    "\ud800-\udfff\ufffe\uffff]"  # lone surrogates, and what XML forbids
)
"""A character that controls the terminal, breaks lines, reverses text, is invisible, or cannot be encoded.

The joiners U+200C and U+200D are allowed: scripts and emoji need them."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMULA = frozenset("=+-@＝＋－＠")
"""Characters that start a formula in a spreadsheet; some programs accept the wide forms too."""


def encodable(text: str) -> str:
    """Return `text` with non-UTF-8 bytes of file names as `\\xe4`, so that it can be encoded and stays distinct."""
    return _SURROGATE.sub(spelled_out, text)


def shown_name(name: str) -> str:
    """Return `name` with control characters spelled out, such as `\\x1b` and `\\n`; distinct names stay distinct."""
    return INVISIBLE.sub(spelled_out, name)


def one_line(text: str) -> str:
    """Return a sentence on one line: white space and line breaks become single spaces, the rest as in `shown_name`."""
    return shown_name(" ".join(text.split()))


def quoted(text: object) -> str:
    """Return the `repr` of a value from a file, shortened to fit into a sentence."""
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}…"


def cell(text: str) -> str:
    """Return `text` as in `shown_name`, with a leading apostrophe if a spreadsheet would run it: `'=1+1`."""
    shown = shown_name(text)
    return f"'{shown}" if shown.lstrip()[:1] in _FORMULA else shown


def markup(text: str) -> str:
    """Escape `text` on one line for HTML and XML, inside an element or a quoted attribute."""
    return escape(one_line(text))


def spelled_out(found: re.Match[str]) -> str:
    """Return a visible form of the matched character."""
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogate for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")


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


def names_text(classes: int) -> str:
    """Format the size of a vocabulary of C `classes`, background included: `60 names and the background`."""
    return f"{classes - 1} {'name' if classes == 2 else 'names'} and the background"


def counts(by_cause: Mapping[str, float], unit: str = "") -> str:
    """Format as `3 late, 1 camera lost`, largest first, or `none`."""
    ordered = sorted(by_cause.items(), key=lambda item: (-item[1], item[0]))
    parts = (
        f"{count if isinstance(count, int) else round(count, 1)}{unit} {one_line(cause)}" for cause, count in ordered
    )
    return ", ".join(parts) or "none"
