"""A recording's pieces in order of time, however the file stores them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.media.decode import Media
from ovavel.runtime.sources.media.decoder import LOST_S, Piece
from ovavel.runtime.sources.media.stamps import HOLE_S, LEAP_S
from ovavel.runtime.system.memory import has_room
from ovavel.runtime.types import Sense

__all__ = ["OrderedMedia"]

MOST_WAITING_BYTES = 32 * 2**20
"""Limit for the waiting packets of one sense; beyond it, each sense is read separately."""


class OrderedMedia:
    """Reads a recording in order of time.

    Each sense is decoded up to the position of the other. Packets in between wait undecoded, so neither the number of
    decoder threads nor the order in the file affects the result. A frame lasts until the next one begins. If one sense
    is stored far behind the other, the file is opened a second time and each sense is read separately.
    """

    def __init__(self, media: Media, reopen: Callable[[], Media]) -> None:
        """Read `media`, which the caller closes; `reopen` opens the same recording again."""
        self._media = media
        self._reopen = reopen
        self.broken = ""
        """Why the file could not be read to its end, or empty."""
        self.found: set[Sense] = set()
        """Senses with at least one packet."""
        shared = self._packets(media)
        self._readers: dict[Sense, Iterator[tuple[Sense, Any]]] = dict.fromkeys(media.streams, shared)
        self._waiting: dict[Sense, deque[Any]] = {sense: deque() for sense in media.streams}
        self._waiting_bytes: dict[Sense, int] = dict.fromkeys(media.streams, 0)
        self._taken: dict[Sense, int] = dict.fromkeys(media.streams, 0)
        self._apart = False
        self._second: Media | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces; each has a time, and a frame lasts until the next."""
        lanes = {
            sense: _Lane(self._lasting() if sense == "vision" else self._timed(sense)) for sense in self._media.streams
        }
        for sense, lane in lanes.items():
            if lane.head is not None:  # FFmpeg has not always seen the start of a stream when it opens a file
                self._media.starts_s[sense] = _time_s(lane.head)
        while ready := {sense: head for sense, lane in lanes.items() if (head := lane.head) is not None}:
            sense = min(ready, key=lambda sense: _time_s(ready[sense]))
            lanes[sense].take()
            yield (
                _as_long_as_sound(ready[sense], lanes["audio"])
                if sense == "vision" and "audio" in lanes
                else ready[sense]
            )

    def close(self) -> None:
        """Close the second container, if it was opened."""
        if self._second is not None:
            self._second.close()

    def _timed(self, sense: Sense) -> Iterator[Piece]:
        """Yield the pieces of one sense; one without a timestamp follows the previous one."""
        next_s = self._media.origin_s or 0.0
        while (packet := self._next(sense)) is not None:
            for piece in self._media.decode(packet, sense):
                stamp_s = next_s if piece.stamp_s is None else piece.stamp_s
                next_s = next_s if piece.jumped else stamp_s + piece.duration_s
                yield piece if piece.stamp_s is not None else replace(piece, stamp_s=stamp_s)

    def _lasting(self) -> Iterator[Piece]:
        """Yield the frames with the duration for which they are shown."""
        before: Piece | None = None
        start_s = 0.0
        for piece in self._timed("vision"):
            assert piece.stamp_s is not None
            if piece.jumped:
                yield piece
                continue
            if before is not None:
                if piece.stamp_s < start_s - LOST_S:
                    continue  # after damage, decoders may return frames out of order
                yield replace(before, duration_s=max(0.0, piece.stamp_s - start_s))
            before, start_s = piece, piece.stamp_s
        if before is not None:
            yield replace(before, duration_s=min(before.duration_s, self._most_s(start_s)))

    def _most_s(self, time_s: float) -> float:
        """Return how long the last frame, which begins at `time_s`, may be shown: to the end in the header, if known.

        Its own duration comes from decoding order and may belong to another frame.
        """
        end_s = self._media.end_s("vision")
        return end_s - time_s if end_s is not None and end_s > time_s else LEAP_S

    def _next(self, sense: Sense) -> Any:
        """Return the next packet of `sense`; None at its end."""
        waiting = self._waiting[sense]
        while not waiting:
            others_bytes = sum(size for other, size in self._waiting_bytes.items() if other != sense)
            if others_bytes > MOST_WAITING_BYTES and not self._apart:
                self._apart = True
                self._read_apart(sense)
            reader = self._readers[sense]
            read = next(reader, None)
            if read is None:
                return None
            owner, packet = read
            if self._readers[owner] is not reader:
                continue
            self._media.note(packet, owner)
            self._waiting[owner].append(packet)
            self._waiting_bytes[owner] += packet.size
            self._taken[owner] += 1
            if packet.size:
                self.found.add(owner)
        packet = waiting.popleft()
        self._waiting_bytes[sense] -= packet.size
        return packet

    def _read_apart(self, sense: Sense) -> None:
        """Read `sense` from a second container, continuing after the packets taken from the first."""
        with suppress(MediaError):  # it was there a moment ago; what is read from one opening is not lost
            self._second = self._reopen()
        if self._second is not None:
            self._media.read_apart()
            self._readers[sense] = self._after(self._second, sense, self._taken[sense])

    def _after(self, media: Media, sense: Sense, taken: int) -> Iterator[tuple[Sense, Any]]:
        for owner, packet in self._packets(media):
            if owner != sense:
                continue
            if taken:
                taken -= 1
            else:
                yield owner, packet

    def _packets(self, media: Media) -> Iterator[tuple[Sense, Any]]:
        from av.error import FFmpegError

        try:
            for packet in media.packets():
                yield media.sense_of(packet), packet
        except FFmpegError as error:
            if isinstance(error, MemoryError) and not has_room():  # no fault of the file
                raise
            self.broken = error.strerror or str(error)
            yield from media.empty_packets()


class _Lane:
    """The pieces of one sense, with lookahead."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._ahead: deque[Piece] = deque()
        self._end_s: float | None = None
        """End of the newest piece taken."""

    @property
    def head(self) -> Piece | None:
        """Return the next piece without taking it; None at the end."""
        return self._ahead[0] if self._ahead or self._look() else None

    def take(self) -> None:
        """Advance to the next piece."""
        self._end_s = _end_s(self._ahead.popleft())

    def hole(self, first_s: float, last_s: float) -> tuple[float, float] | None:
        """Return the gap longer than a second that begins between `first_s` and `last_s`, if any."""
        start_s, index = self._end_s, 0
        while index < len(self._ahead) or self._look():
            piece = self._ahead[index]
            if start_s is not None and start_s >= first_s and _time_s(piece) - start_s > HOLE_S:
                return start_s, _time_s(piece)
            start_s, index = _end_s(piece), index + 1
            if start_s > last_s:
                return None
        return None

    def _look(self) -> bool:
        piece = next(self._pieces, None)
        if piece is not None:
            self._ahead.append(piece)
        return piece is not None


def _as_long_as_sound(piece: Piece, sound: _Lane) -> Piece:
    """Return `piece`, cut where video and sound have the same gap: the frame is not held there."""
    start_s, end_s = _time_s(piece), _end_s(piece)
    if piece.duration_s <= HOLE_S:
        return piece
    hole = sound.hole(start_s - HOLE_S, start_s + HOLE_S)
    if hole is None or abs(hole[1] - end_s) > HOLE_S:
        return piece
    return replace(piece, duration_s=max(0.0, min(hole[0], end_s) - start_s))


def _time_s(piece: Piece) -> float:
    assert piece.stamp_s is not None
    return piece.stamp_s


def _end_s(piece: Piece) -> float:
    return _time_s(piece) + piece.duration_s
