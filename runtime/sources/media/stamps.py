"""Make the timestamps of one container continuous, whatever its clock does."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ovavel.runtime.types import Sense

__all__ = ["BACK_S", "HOLE_S", "LEAP_S", "Stamped", "Stamps"]

BACK_S = 0.25
"""A step back up to this is jitter; a larger one is a jump."""
HOLE_S = 1.0
"""A step ahead up to this needs no confirmation."""
LEAP_S = 10.0
"""A step further ahead than this, past everything else, is a broken clock and not a pause."""

MOST_REORDERED = 16
"""Largest reordering depth of any codec, in frames."""

Item = TypeVar("Item")


class Stamped(NamedTuple, Generic[Item]):
    """An item with its timestamp correction."""

    item: Item
    shift_s: float | None
    """To be added to its timestamps; None if they are wrong and must be ignored."""
    jumped: bool
    """Whether the clock jumped before it."""


@dataclass(slots=True)
class _Track(Generic[Item]):
    next_s: float | None = None
    """Continuous time at which the next item should start; None before the first."""
    step_s: float = 0.0
    """Between the two newest items."""
    shift_s: float = 0.0
    earlier: list[float] = field(default_factory=list)
    """Earlier shifts."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_REORDERED + 1))
    """Continuous times of the newest items."""
    reordered: bool = False
    """Whether the newest item was stored out of timestamp order."""
    suspect: tuple[float, float, Item] | None = None
    """Timestamp, duration and item of a suspicious step; the next item shows what it means."""
    noted_s: float | None = None
    """The newest timestamp that was read."""
    read_s: float = -math.inf
    """Continuous time up to which packets were read."""

    def in_line(self, time_s: float) -> bool:
        if self.next_s is None:
            return False
        return self.next_s - BACK_S <= time_s <= self.next_s + max(HOLE_S, 2 * self.step_s)


class Stamps(Generic[Item]):
    """Judges timestamps in the order of the container's packets, in which they never run backwards.

    A step back, or ahead by more than ten seconds past everything else, is a jump: what follows is shifted so that it
    continues where expected. The streams of a container share a clock, so a shift found for one is tried for the
    other, and so are earlier shifts: sound and video stay together when a recording was spliced, and return to their
    place after a damaged section. A single timestamp that its successor contradicts is ignored.
    """

    def __init__(self, senses: Iterable[Sense], *, start_s: float | None = None, end_s: float | None = None) -> None:
        """Judge the streams of `senses`; `start_s` and `end_s` come from the container's header, if known."""
        self._tracks: dict[Sense, _Track[Item]] = {sense: _Track() for sense in senses}
        self.apart = len(self._tracks) == 1
        """Whether a stream is read separately, so that no other one shows the position in the container."""
        self._start_s = start_s
        self._end_s = end_s

    def note(self, sense: Sense, stamp_s: float | None) -> None:
        """Record that a packet was read from the container, so that others may be that far."""
        track = self._tracks[sense]
        if stamp_s is None or not math.isfinite(stamp_s):
            return
        if track.noted_s is None:
            if self._first(stamp_s):
                track.read_s = stamp_s
        elif 0 < stamp_s - track.noted_s <= LEAP_S:
            track.read_s += stamp_s - track.noted_s
        track.noted_s = stamp_s

    def push(
        self, sense: Sense, stamp_s: float | None, duration_s: float, item: Item, *, ordered: bool = True
    ) -> list[Stamped[Item]]:
        """Add an item that starts at `stamp_s` (None if unknown) and lasts `duration_s`.

        Returns the resolved items in order: none while a suspicious one waits for its successor. `ordered` is False
        if items are not stored in the order of `stamp_s`, as with reordered frames.
        """
        track = self._tracks[sense]
        if stamp_s is None or not math.isfinite(stamp_s):
            settled = self._settle(track)
            if track.next_s is not None:
                track.next_s += duration_s
            return [*settled, Stamped(item, track.shift_s, False)]
        time_s = stamp_s + track.shift_s
        if ordered and track.reordered and track.next_s is not None and abs(time_s - track.next_s) <= LEAP_S:
            track.next_s = time_s  # the first one whose place in the order of decoding is known
        track.reordered = not ordered
        in_line = track.in_line(time_s) if ordered else self._may_be_reordered(track, time_s, duration_s)
        if track.suspect is not None:
            held_s, held_for_s, held = track.suspect
            held_s += track.shift_s
            assert track.next_s is not None
            disproved = in_line and (held_s < track.next_s or time_s < held_s - BACK_S)
            latest_s = max(held_s + held_for_s, self._position_s()) + LEAP_S
            end_s = -math.inf if self._end_s is None else self._end_s + track.shift_s
            both_later = track.next_s < time_s < held_s <= end_s
            if not ordered and held_s > track.next_s and (disproved or both_later):
                stamp_held_s, track.suspect = track.suspect[0], None  # it is shown after this one, and that is all
                settled = [self._accept(track, stamp_held_s, held_for_s, held)]
            elif not disproved and held_s - BACK_S <= time_s <= latest_s:
                settled = self._settle(track)
            else:
                track.suspect = None
                settled = [Stamped(held, None, False)]
            return [*settled, *self.push(sense, stamp_s, duration_s, item, ordered=ordered)]
        if in_line or (track.next_s is None and self._first(time_s, duration_s)):
            return [self._accept(track, stamp_s, duration_s, item)]
        track.suspect = (stamp_s, duration_s, item)
        return [] if track.next_s is not None else self._settle(track)

    def flush(self, sense: Sense) -> list[Stamped[Item]]:
        """Return the waiting items at the end of the stream."""
        return self._settle(self._tracks[sense])

    def _settle(self, track: _Track[Item]) -> list[Stamped[Item]]:
        """Accept a suspicious item: as a pause if plausible, else as a jump."""
        if track.suspect is None:
            return []
        (stamp_s, duration_s, item), track.suspect = track.suspect, None
        jumped = not self._plausible(track, stamp_s + track.shift_s)
        if jumped:
            self._shift(track, stamp_s)
        return [self._accept(track, stamp_s, duration_s, item, jumped=jumped)]

    def _accept(
        self, track: _Track[Item], stamp_s: float, duration_s: float, item: Item, *, jumped: bool = False
    ) -> Stamped[Item]:
        time_s = stamp_s + track.shift_s
        track.step_s = duration_s
        if jumped or not track.reordered:
            track.recent.clear()
        track.recent.append(time_s)
        track.next_s = max(track.recent) + duration_s
        track.read_s = max(track.read_s, time_s)
        return Stamped(item, track.shift_s, jumped)

    def _position_s(self) -> float:
        """Continuous time up to which anything is known."""
        tracks = self._tracks.values()
        return max(track.read_s if track.next_s is None else max(track.read_s, track.next_s) for track in tracks)

    def _may_be_reordered(self, track: _Track[Item], time_s: float, duration_s: float) -> bool:
        """Whether a reordered frame may be at `time_s`."""
        if track.next_s is None:
            return False
        ahead_s = max(LEAP_S, MOST_REORDERED * duration_s)
        back = len(track.recent) > MOST_REORDERED and time_s < min(track.recent) - BACK_S
        return not back and time_s <= max(track.next_s, self._position_s()) + ahead_s

    def _first(self, time_s: float, duration_s: float = 0.0) -> bool:
        """Whether a stream may begin at `time_s`; frames are decoded some durations before they are shown."""
        early_s = max(LEAP_S, MOST_REORDERED * duration_s)
        if self._start_s is None:
            return all(track.next_s is None for track in self._tracks.values()) or self._within(time_s)
        end_s = max(self._position_s(), self._start_s) + LEAP_S
        return self._start_s - early_s <= time_s <= max(end_s, -math.inf if self._end_s is None else self._end_s)

    def _within(self, time_s: float) -> bool:
        return abs(time_s - self._position_s()) <= LEAP_S

    def _plausible(self, track: _Track[Item], time_s: float, *, back_s: float = BACK_S) -> bool:
        """Whether `time_s` is no further ahead than a pause may be."""
        if track.next_s is None:
            return self._first(time_s, track.step_s)
        end_s = max(track.next_s, self._position_s()) + LEAP_S
        if self.apart and self._end_s is not None:  # only the header shows how time passes
            end_s = max(end_s, self._end_s + track.shift_s)
        return track.next_s - back_s <= time_s <= end_s

    def _shift(self, track: _Track[Item], stamp_s: float) -> None:
        """Find the shift that fits `stamp_s`."""
        others = [other.shift_s for other in self._tracks.values() if other is not track]
        before = track.shift_s
        for shift_s in (*others, *reversed(track.earlier)):
            back_s = HOLE_S if shift_s in others else BACK_S  # streams rarely end on the same sample
            if shift_s != before and self._plausible(track, stamp_s + shift_s, back_s=back_s):
                break
        else:
            position_s = self._position_s()
            if not math.isfinite(position_s):
                position_s = stamp_s if self._start_s is None else self._start_s
            next_s = position_s if track.next_s is None else track.next_s
            # a stream that ended long before the splice continues with the others
            shift_s = (position_s if position_s - next_s > HOLE_S else next_s) - stamp_s
        track.earlier = [*track.earlier[-3:], before]
        track.shift_s = shift_s
