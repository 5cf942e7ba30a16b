"""All that is known of one recording once it has been localized.

Shapes: C named classes, so C + 1 with the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovavel.runtime.economy.counts import EconomyFigures
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.types import Event, Gap, SegmentScores

__all__ = ["Localization"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """The events of one recording, and what they rest on."""

    info: SessionInfo
    """The recording, the names, and what decided."""
    duration_s: float
    scores: tuple[SegmentScores, ...]
    """The final scores, one per second, in order."""
    events: tuple[Event, ...]
    """The events that held, each in state "end", ordered by start."""
    gaps: tuple[Gap, ...]
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)
    """Small JPEGs by window index; none unless asked for."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Windows never decided on, by cause."""
    notes: tuple[str, ...] = ()
    """Messages of the source and of the choice of its channel, in order."""
    channels: Mapping[int, int] = field(default_factory=dict)
    """Seconds in which each channel of the sound was listened to, by its index; none for a mix."""
    economy: EconomyFigures | None = None
    """What was not computed; None where every picture was looked at."""
    trailing_s: float = 0.0
    """Media after the last whole second, too short for a window."""
