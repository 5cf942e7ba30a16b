"""The last minutes of one camera as packets, and what of them makes a clip. Pure: bytes and times, no FFmpeg.

Pictures come in groups: one that can be shown by itself, and those that build on it. A clip begins with such a picture,
so a group is kept whole or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Cutting", "Picture", "Ring", "Sound", "Strand"]

APART_S = 0.5
"""Pictures of a new connection that lie further than this inside what the one before it brought show it again."""
_STEP_S = 0.04
_TOGETHER_S = 0.1
"""Sound that is earlier than the first picture by less than this is left out: a clip begins with something to see."""


class Picture(NamedTuple):
    """An encoded picture. Pictures come in the order in which a decoder needs them."""

    data: bytes
    shown_s: float
    key: bool
    """Whether it can be shown without an earlier one."""


class Sound(NamedTuple):
    """An encoded block of sound, on the media clock."""

    data: bytes
    time_s: float
    duration_s: float


@dataclass(slots=True)
class Strand:
    """The pictures of one connection, whose clock is their own."""

    codec: str
    offset_s: float | None = None
    """Media time minus the pictures' own; None while unknown."""


@dataclass(slots=True)
class _Group:
    strand: Strand
    head: bytes
    """Parameter sets; groups with equal ones can be in one file."""
    pictures: list[Picture] = field(default_factory=list)
    size: int = 0
    next_s: float | None = None
    """When the next group of the strand begins."""

    @property
    def span_s(self) -> tuple[float, float] | None:
        """Start and end on the media clock, if that is known."""
        if self.strand.offset_s is None:
            return None
        last_s = self.next_s
        if last_s is None:
            shown = sorted(each.shown_s for each in self.pictures[-17:])
            last_s = shown[-1] + (shown[-1] - shown[-2] if len(shown) > 1 else _STEP_S)
        return self.pictures[0].shown_s + self.strand.offset_s, last_s + self.strand.offset_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """What goes into one clip. Times of pictures and sounds count from its start."""

    start_s: float
    end_s: float
    """On the media clock."""
    codec: str
    """Of the pictures; empty where there are none."""
    pictures: tuple[Picture, ...]
    sounds: tuple[Sound, ...]
    changed: bool
    """Whether the format of the pictures changed in what was asked for, so that a part of it is left out."""


class Ring:
    """Keeps what is newest, within a number of bytes and of seconds. Not for several threads at once."""

    def __init__(self, *, limit_bytes: int, limit_s: float) -> None:
        self._limit_bytes, self._limit_s = limit_bytes, limit_s
        self._groups: deque[_Group] = deque()
        self._sounds: deque[Sound] = deque()
        self._open: _Group | None = None
        self.size = 0
        """Bytes that are kept."""
        self.too_large = 0
        """Groups that did not fit, so that none of their pictures can be in a clip."""

    def picture(self, strand: Strand, picture: Picture, head: bytes) -> None:
        """Add the next picture of `strand`; `head` are its parameter sets if it is a key."""
        before = self._open if self._open is not None and self._open.strand is strand else None
        if picture.key:
            self._open = _Group(strand, head)
            self._groups.append(self._open)
            if before is not None:
                before.next_s = picture.shown_s
        elif before is None:
            return  # nothing to build on is kept
        assert self._open is not None
        self._open.pictures.append(picture)
        self._open.size += len(picture.data)
        self.size += len(picture.data)
        self._trim()

    def sound(self, sound: Sound) -> None:
        """Add the next block of sound."""
        self._sounds.append(sound)
        self.size += len(sound.data)
        self._trim()

    def cut(self, from_s: float, to_s: float) -> Cutting | None:
        """The pictures and sounds of [`from_s`, `to_s`) on the media clock; None if none of them are kept.

        It begins with the key picture at or before `from_s`, where there is one. Where the format of the pictures
        changes, the longest stretch of one format is taken.
        """
        parts = _by_format(self._overlapping(from_s, to_s))
        part = max(parts, key=lambda groups: _end_s(groups) - _start_s(groups), default=[])
        if part:
            changed = len(parts) > 1
            from_s = _start_s(part) if changed else min(from_s, _start_s(part))
            to_s = min(to_s, _end_s(part)) if changed else to_s
            pictures = _pictures(part, to_s)
            end_s = min(to_s, _end_s(part))
        else:
            pictures, changed, end_s = [], False, from_s
        if pictures and pictures[0].shown_s - from_s < _TOGETHER_S:
            from_s = pictures[0].shown_s
        sounds = [each for each in self._sounds if from_s <= each.time_s < to_s]
        starts = [each.shown_s for each in pictures[:1]] + [each.time_s for each in sounds[:1]]
        if not starts:
            return None
        start_s = min(starts)
        return Cutting(
            start_s=start_s,
            end_s=max([end_s, *(each.time_s + each.duration_s for each in sounds[-1:])]),
            codec=part[0].strand.codec if part else "",
            pictures=tuple(each._replace(shown_s=each.shown_s - start_s) for each in pictures),
            sounds=tuple(each._replace(time_s=each.time_s - start_s) for each in sounds),
            changed=changed,
        )

    def _overlapping(self, from_s: float, to_s: float) -> list[_Group]:
        found: list[_Group] = []
        covered_s = -float("inf")
        for group in self._groups:
            span = group.span_s
            if span is None or span[1] <= from_s or span[0] >= to_s:
                continue
            again = bool(found) and group.strand is not found[-1].strand and span[0] < covered_s - APART_S
            if not again:
                found.append(group)
                covered_s = max(covered_s, span[1])
        return found

    def _trim(self) -> None:
        newest_s = self._newest_s()
        while self._groups and (self.size > self._limit_bytes or self._is_old(self._groups[0], newest_s)):
            if self._groups[0] is self._open:
                # Its other pictures are of no use without its first ones.
                self.too_large += self.size > self._limit_bytes
                self._open = None
            self.size -= self._groups.popleft().size
        while self._sounds and (self.size > self._limit_bytes or newest_s - self._sounds[0].time_s > self._limit_s):
            self.size -= len(self._sounds.popleft().data)

    def _is_old(self, group: _Group, newest_s: float) -> bool:
        span = group.span_s
        return span is not None and newest_s - span[1] > self._limit_s

    def _newest_s(self) -> float:
        ends = [self._sounds[-1].time_s] if self._sounds else []
        for group in reversed(self._groups):
            if (span := group.span_s) is not None:
                ends.append(span[1])
                break
        return max(ends, default=-float("inf"))


def _by_format(groups: Sequence[_Group]) -> list[list[_Group]]:
    """Neighbours that can be in one file."""
    parts: list[list[_Group]] = []
    for group in groups:
        if parts and (parts[-1][0].head, parts[-1][0].strand.codec) == (group.head, group.strand.codec):
            parts[-1].append(group)
        else:
            parts.append([group])
    return parts


def _start_s(groups: Sequence[_Group]) -> float:
    span = groups[0].span_s
    assert span is not None
    return span[0]


def _end_s(groups: Sequence[_Group]) -> float:
    return max(span[1] for group in groups if (span := group.span_s) is not None)


def _pictures(groups: Sequence[_Group], to_s: float) -> list[Picture]:
    """The pictures of `groups` that are shown before `to_s`, and what these need, on the media clock."""
    found: list[Picture] = []
    for index, group in enumerate(groups):
        offset_s = group.strand.offset_s
        assert offset_s is not None
        first_s = group.pictures[0].shown_s
        # Pictures that are shown before the group's first one build on the group before it as well.
        builds_on = index > 0 and groups[index - 1].strand is group.strand
        found += (
            each._replace(shown_s=each.shown_s + offset_s)
            for each in group.pictures[: _length(group.pictures, to_s - offset_s)]
            if builds_on or each.shown_s >= first_s
        )
    return found


def _length(pictures: Sequence[Picture], to_s: float) -> int:
    """How many of `pictures`, in the order of decoding, hold all that is shown before `to_s`.

    A few more are taken where one that is shown later is decoded earlier, so that none is missing between the two.
    """
    length = max((index + 1 for index, each in enumerate(pictures) if each.shown_s < to_s), default=0)
    latest_s = max((each.shown_s for each in pictures[:length]), default=0.0)
    while length and any(each.shown_s < latest_s for each in pictures[length:]):
        latest_s = max(latest_s, pictures[length].shown_s)
        length += 1
    return length
