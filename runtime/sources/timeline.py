"""One media clock out of the timestamps of several streams, whatever those do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ovavel.runtime.types import Gap, Sense

__all__ = ["BACK_S", "LEAP_S", "Placed", "Timeline"]

BACK_S = 0.25
"""A step back of up to this much is jitter; more is a jump."""
HOLE_S = 1.0
"""A stretch without data longer than this is declared."""
LEAP_S = 10.0
"""A step further ahead than this is no pause but a broken clock: the stream is put where it was expected."""
TAIL_S = 0.25
"""Streams of one recording rarely end on the same sample; a shorter tail is not worth telling."""

MISSING_CAUSE: dict[Sense, str] = {"vision": "no video", "audio": "no audio"}


class Placed(NamedTuple):
    """Where a piece of media belongs."""

    time_s: float | None
    """Media time of its start; None if its time was declared lost before it came, so that it must be dropped."""
    gaps: tuple[Gap, ...]
    """What must be declared before it."""


@dataclass(slots=True)
class _Track:
    offset_s: float | None = None
    """Media time minus the stream's own time."""
    start_s: float = 0.0
    """Media time of the newest piece; the next one does not begin earlier."""
    next_s: float = 0.0
    """Media time at which the next piece should begin."""
    declared_s: float = 0.0
    """Media time up to which gaps were declared."""
    heard: bool = False
    """Whether anything was placed since the clock was set."""

    @property
    def position_s(self) -> float:
        return max(self.next_s, self.declared_s)


class Timeline:
    """Places pieces of media on one clock that starts at 0 and, for each sense, never runs backwards.

    Streams of one container share their origin, so an offset found for one is tried for the other before a jump is
    taken for its own: sound and picture stay together when a recording was spliced. What cannot be believed (a leap of
    more than ten seconds past everything else, a step back) puts the stream where it was expected and is declared as
    a gap "timestamp jump". A sense that stays away while the other goes on is declared as "no video" or "no audio".
    """

    def __init__(self, senses: Iterable[Sense], *, patience_s: float = 10.0) -> None:
        """Keep a track for each of `senses`; one that lags `patience_s` behind the other is declared missing."""
        self._tracks: dict[Sense, _Track] = {sense: _Track() for sense in senses}
        self._patience_s = patience_s

    @property
    def position_s(self) -> float:
        """Media time up to which something is known of at least one sense."""
        return max(track.position_s for track in self._tracks.values())

    def start(self, origin_s: float | None, *, at_s: float = 0.0) -> None:
        """Let the streams' own time `origin_s` (None: that of the first piece) be the media time `at_s` from now on."""
        for track in self._tracks.values():
            track.offset_s = None if origin_s is None else at_s - origin_s
            track.start_s = max(track.start_s, at_s)
            track.next_s = max(track.next_s, at_s)
            track.heard = False

    def place(self, sense: Sense, stamp_s: float | None, duration_s: float) -> Placed:
        """Place a piece of `sense` with the stream's own time `stamp_s` (None where it has none)."""
        track = self._tracks[sense]
        gaps: list[Gap] = []
        time_s = track.next_s
        if stamp_s is not None and math.isfinite(stamp_s):
            time_s = self._believe(track, stamp_s)
            if not self._plausible(track, time_s):
                gap_s = track.position_s
                time_s = self._rebase(track, stamp_s)
                gaps.append(_gap(sense, "timestamp jump", gap_s, max(gap_s, time_s)))
                track.declared_s = max(track.declared_s, gap_s, time_s)
            elif time_s - track.position_s > HOLE_S:
                gaps.append(
                    _gap(sense, "timestamp jump" if track.heard else MISSING_CAUSE[sense], track.position_s, time_s)
                )
                track.declared_s = time_s
        first, track.heard = not track.heard, True
        end_s = time_s + duration_s
        if (first and end_s <= track.start_s) or time_s < track.declared_s - BACK_S:
            track.next_s = max(track.next_s, end_s)
            return Placed(None, tuple(gaps))
        time_s = max(time_s, track.start_s, track.declared_s)
        track.start_s = time_s
        track.next_s = time_s + duration_s
        return Placed(time_s, tuple(gaps))

    def overdue(self) -> list[Gap]:
        """Declare what must be given up, because the other sense is so far ahead."""
        return self._declare_missing(self.position_s, self._patience_s, step_s=HOLE_S)

    def finish(self) -> list[Gap]:
        """Declare what a sense lacks to the end of the other."""
        return self._declare_missing(self.position_s, TAIL_S, step_s=TAIL_S)

    def lose(self, cause: str, until_s: float) -> list[Gap]:
        """Declare that nothing came for any sense up to `until_s`."""
        gaps = [
            _gap(sense, cause, track.position_s, until_s)
            for sense, track in self._tracks.items()
            if until_s > track.position_s
        ]
        for track in self._tracks.values():
            track.declared_s = max(track.declared_s, until_s)
        return gaps

    def _believe(self, track: _Track, stamp_s: float) -> float:
        """Media time of `stamp_s` if the clock goes on as before."""
        if track.offset_s is None:
            for each in self._tracks.values():
                each.offset_s = each.next_s - stamp_s
        assert track.offset_s is not None
        return stamp_s + track.offset_s

    def _plausible(self, track: _Track, time_s: float) -> bool:
        back_s = BACK_S if track.heard else LEAP_S
        return track.next_s - back_s <= time_s <= self.position_s + LEAP_S

    def _rebase(self, track: _Track, stamp_s: float) -> float:
        """Give `track` a new offset, the other stream's if that makes sense of `stamp_s`; return the media time."""
        for other in self._tracks.values():
            if other.offset_s not in (None, track.offset_s) and self._plausible(track, stamp_s + other.offset_s):
                track.offset_s = other.offset_s
                return stamp_s + other.offset_s
        track.offset_s = track.position_s - stamp_s
        return track.position_s

    def _declare_missing(self, until_s: float, patience_s: float, *, step_s: float) -> list[Gap]:
        gaps = []
        for sense, track in self._tracks.items():
            given_up = track.declared_s > track.next_s
            if until_s - track.position_s > (step_s if given_up else patience_s):
                gaps.append(_gap(sense, MISSING_CAUSE[sense], track.position_s, until_s))
                track.declared_s = until_s
        return gaps


def _gap(sense: Sense, cause: str, start_s: float, end_s: float) -> Gap:
    return Gap(sense=sense, cause=cause, start_s=start_s, duration_s=end_s - start_s)
