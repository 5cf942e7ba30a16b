"""Events as subtitles."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ovavel.runtime.reporting.text import one_line, timestamp
from ovavel.runtime.results.localization import Localization

__all__ = ["to_srt", "to_vtt"]

# SubRip has no escapes, and players read <…> and {…} as styles: full-width forms look the same and mean nothing.
_SUBRIP_MARKS = str.maketrans("<>{}", "＜＞｛｝")
_SHORTEST_S = 0.001


def to_srt(localization: Localization) -> bytes:
    """Write SubRip, a cue per event, in UTF-8."""
    cues = (
        f"{number}\n{start} --> {end}\n{label.translate(_SUBRIP_MARKS)}\n\n"
        for number, (start, end, label) in enumerate(_cues(localization, ","), start=1)
    )
    return "".join(cues).encode()


def to_vtt(localization: Localization) -> bytes:
    """Write WebVTT, a cue per event."""
    cues = (f"{start} --> {end}\n{escape(label, quote=False)}\n\n" for start, end, label in _cues(localization, "."))
    return ("WEBVTT\n\n" + "".join(cues)).encode()


def _cues(localization: Localization, mark: str) -> Iterator[tuple[str, str, str]]:
    """Give start, end and label of each event by start, as both formats ask for; an end is later than its start."""
    for event in sorted(localization.events, key=lambda event: event.start_s):
        start_s = round(max(0.0, event.start_s), 3)  # as written; otherwise both may be rounded to the same
        end_s = max(event.end_s, start_s + _SHORTEST_S)
        yield timestamp(start_s, mark), timestamp(end_s, mark), one_line(event.label)
