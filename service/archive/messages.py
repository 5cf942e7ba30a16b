"""What the service asks a process about its archive, and what it answers."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ovavel.runtime.archive.changes import Difference
from ovavel.runtime.archive.search.hits import Hit
from ovavel.runtime.archive.search.ranking import Evidence
from ovavel.runtime.pipeline.tracker import EventRules

__all__ = ["Answered", "Compared", "Ended", "FromChild", "Looking", "Margins", "Refused", "ToChild", "Trying"]


class Looking(Struct, frozen=True, kw_only=True, tag=True):
    """What to look for. It is `Answered`."""

    archive: str
    bundle: str
    phrases: tuple[str, ...]
    without: tuple[str, ...]
    """Phrases that must fit less."""
    evidence: Evidence
    cameras: tuple[str, ...]
    """All of them if empty."""
    from_s: int | None
    """Unix time of the first second."""
    to_s: int | None
    """Unix time after the last second."""
    limit: int
    """Hits for each phrase, at most."""
    pooled: bool
    """Whether to search what was archived with pooled sound, as `Question.pooled`."""


class Margins(Struct, frozen=True, kw_only=True):
    """When an event begins and ends, as `EventRules`."""

    start_margin: float | None
    keep_margin: float | None
    min_duration_s: float
    bridge_s: float

    @property
    def rules(self) -> EventRules:
        """Checked: raises UsageError where they do not fit together."""
        return EventRules(
            start_margin=self.start_margin,
            keep_margin=self.keep_margin,
            min_duration_s=self.min_duration_s,
            bridge_s=self.bridge_s,
        )


class Trying(Struct, frozen=True, kw_only=True, tag=True):
    """Which settings to compare. They are `Compared`."""

    archive: str
    bundle: str
    cameras: dict[str, tuple[Margins, Margins]]
    """By camera: those in force, and those to try."""
    fusion: str | None
    """Rule to try; None: the bundle's own, which is in force."""
    from_s: int
    """Unix time of the first second."""
    to_s: int
    """Unix time after the last second."""
    pooled: bool
    """Whether to decide on what was archived with pooled sound; the rest is of another model."""


class Answered(Struct, frozen=True, kw_only=True, tag=True):
    """Another day of a camera was searched; the last one holds the ranking of all of them."""

    done: int
    days: int
    seconds: int
    last: bool
    hits: tuple[Hit, ...]
    note: str
    """What is different from live watching, and what is not searched; empty if nothing is."""


class Compared(Struct, frozen=True, kw_only=True, tag=True):
    """Another day of a camera was decided on with both settings."""

    done: int
    days: int
    camera: str
    from_s: int
    """Unix time from which the events of this camera are known by now."""
    to_s: int
    """Unix time from which they were known before."""
    seconds: int
    """Seconds of the day that were decided on."""
    other_model: int
    """Seconds of all days that the archive has of another model, which cannot be compared."""
    unreadable: int
    """Folders of the archive that cannot be read: a day of a camera each, or all of them."""
    unsure: int
    """Seconds that rounding may have decided with the settings to try."""
    differences: tuple[Difference, ...]


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """It cannot be answered."""

    error: str


class Ended(Struct, frozen=True, kw_only=True, tag=True):
    """All was said."""


ToChild: TypeAlias = Looking | Trying
FromChild: TypeAlias = Answered | Compared | Refused | Ended
