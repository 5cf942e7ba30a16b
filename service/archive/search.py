"""A search of the archive, in a process of its own: it may take seconds and memory that the cameras must not miss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from ovavel.runtime.archive.search.hits import Hit
from ovavel.runtime.archive.search.ranking import Evidence
from ovavel.service.link import Child, LinkClosed

__all__ = ["Answered", "Ended", "FromChild", "Looking", "Refused", "SearchError", "Searching"]

_SILENT_S = 120.0
"""A day takes a second or so, the text encoder longer; one that is silent for so long hangs."""


class Looking(Struct, frozen=True, kw_only=True, tag=True):
    """The one message to the child: what to look for."""

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


class Answered(Struct, frozen=True, kw_only=True, tag=True):
    """Another day of a camera was searched; the last one holds the ranking of all of them."""

    done: int
    days: int
    seconds: int
    last: bool
    hits: tuple[Hit, ...]
    note: str
    """What is different from live watching; empty if nothing is."""


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """It cannot be searched for."""

    error: str


class Ended(Struct, frozen=True, kw_only=True, tag=True):
    """All was said."""


FromChild: TypeAlias = Answered | Refused | Ended


class SearchError(Exception):
    """It cannot be searched for; says why."""


class Searching:
    """A search that runs. `close` cancels it, from any thread."""

    def __init__(self, looking: Looking) -> None:
        """Start it.

        Raises:
            SearchError: no process can be started now.
        """
        self._closed = False
        try:
            self._child = Child("ovavel.service.archive.child")
            self._child.link.send(looking)
        except LinkClosed as error:
            raise SearchError(str(error)) from error

    def answers(self) -> Iterator[Answered]:
        """Wait for each answer, the newest day's first.

        Raises:
            SearchError: what was asked cannot be answered, or the process was lost.
        """
        while True:
            try:
                found: Answered | Refused | Ended = self._child.link.receive(FromChild, timeout_s=_SILENT_S)
            except LinkClosed as error:
                if self._closed:
                    return
                raise SearchError(f"the search was lost: {error}") from error
            if isinstance(found, Refused):
                raise SearchError(found.error)
            if isinstance(found, Ended):
                return
            yield found

    def close(self) -> None:
        """End it. May be called twice."""
        self._closed = True
        self._child.stop(0.0)
