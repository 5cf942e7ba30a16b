"""One media clock for the pieces of several streams, with the gaps between them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ovavel.runtime.sources.media.stamps import BACK_S, HOLE_S
from ovavel.runtime.types import Gap, GapCause, Sense

__all__ = ["Timeline"]

TAIL_S = 0.25
"""Streams of one recording rarely end on the same sample; a shorter tail is not worth reporting."""

MISSING_CAUSE: dict[Sense, GapCause] = {"vision": GapCause.NO_VIDEO, "audio": GapCause.NO_AUDIO}


class Placed(NamedTuple):
    """Position of a piece on the media clock."""

    time_s: float | None
    """Media time of its start; None if that time was already declared lost, so that the piece must be dropped."""
    gaps: tuple[Gap, ...]
    """Gaps to declare before it."""
    cut_s: float = 0.0
    """How much of its beginning lies before the start of the media."""


@dataclass(slots=True)
class _Track:
    start_s: float = 0.0
    """Media time of the newest piece; the next one cannot begin earlier."""
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

    `Stamps` has already made the stream times continuous. A sense without data for longer than a second is declared
    as "no video" or "no audio": before its next piece, or as soon as the other sense is too far ahead.
    """

    def __init__(self, senses: Iterable[Sense], *, patience_s: float) -> None:
        """Keep a track for each of `senses`; one that lags behind the other by `patience_s` is declared missing."""
        self._tracks: dict[Sense, _Track] = {sense: _Track() for sense in sorted(senses)}
        self._patience_s = patience_s
        self._offset_s: float | None = None

    @property
    def position_s(self) -> float:
        """Media time up to which at least one sense is known."""
        return max(track.position_s for track in self._tracks.values())

    @property
    def offset_s(self) -> float | None:
        """What stream time is off media time; None before the first piece of a stream without a known start."""
        return self._offset_s

    def start(self, origin_s: float | None, *, at_s: float = 0.0) -> None:
        """Map the stream time `origin_s` (None: that of the first piece) to the media time `at_s` from now on."""
        self._offset_s = None if origin_s is None else at_s - origin_s
        for track in self._tracks.values():
            track.start_s = max(track.start_s, at_s)
            track.next_s = max(track.next_s, at_s)
            track.heard = False

    def place(self, sense: Sense, stamp_s: float | None, duration_s: float) -> Placed:
        """Place a piece of `sense` with the stream time `stamp_s` (None if it has none)."""
        track = self._tracks[sense]
        gaps: list[Gap] = []
        time_s = track.next_s
        if stamp_s is not None and math.isfinite(stamp_s):
            if self._offset_s is None:
                self._offset_s = track.next_s - stamp_s
            time_s = stamp_s + self._offset_s
        if time_s - track.position_s > HOLE_S:
            gaps.append(_gap(sense, MISSING_CAUSE[sense], track.position_s, time_s))
            track.declared_s = time_s
        end_s = time_s + duration_s
        if (not track.heard and end_s <= track.start_s) or time_s < track.declared_s - BACK_S:
            track.next_s = max(track.next_s, end_s)
            return Placed(None, tuple(gaps))
        cut_s = 0.0 if track.heard else max(0.0, track.start_s - time_s)
        track.heard = True
        time_s = max(time_s, track.start_s, track.declared_s)
        track.start_s = time_s
        track.next_s = max(time_s, end_s)
        return Placed(time_s, tuple(gaps), cut_s)

    def jump(self, sense: Sense, stamp_s: float | None) -> Gap:
        """Declare that the clock of `sense` jumped before the piece that will be at `stamp_s`."""
        position_s = self._tracks[sense].position_s
        if stamp_s is not None and self._offset_s is not None:
            position_s = max(position_s, stamp_s + self._offset_s)
        return _gap(sense, GapCause.TIMESTAMP_JUMP, position_s, position_s)

    def overdue(self) -> list[Gap]:
        """Declare gaps in a sense that lags too far behind the other."""
        # Until its end, a long piece says nothing about the other sense.
        newest_s = max(max(track.start_s, track.declared_s) for track in self._tracks.values())
        return self._declare_missing(newest_s, self._patience_s, step_s=HOLE_S)

    def finish(self) -> list[Gap]:
        """Declare what each sense lacks up to the end of the other."""
        return self._declare_missing(self.position_s, TAIL_S, step_s=TAIL_S)

    def lose(self, cause: GapCause, until_s: float) -> list[Gap]:
        """Declare that no data arrived for any sense up to `until_s`."""
        gaps = [
            _gap(sense, cause, track.position_s, until_s)
            for sense, track in self._tracks.items()
            if until_s > track.position_s
        ]
        for track in self._tracks.values():
            track.declared_s = max(track.declared_s, until_s)
        return gaps

    def _declare_missing(self, until_s: float, patience_s: float, *, step_s: float) -> list[Gap]:
        gaps = []
        for sense, track in self._tracks.items():
            given_up = track.declared_s > track.next_s
            if until_s - track.position_s > (step_s if given_up else patience_s):
                gaps.append(_gap(sense, MISSING_CAUSE[sense], track.position_s, until_s))
                track.declared_s = until_s
        return gaps


def _gap(sense: Sense, cause: GapCause, start_s: float, end_s: float) -> Gap:
    return Gap(sense=sense, cause=cause, start_s=start_s, duration_s=end_s - start_s)
