"""Decode one stream: packets in container order, pieces in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from ovavel.runtime.types import Sense

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.video.frame import VideoFrame

__all__ = ["Decoder", "Piece"]

LOST_S = 0.25
"""Missing frames are declared from this length on; some streams contain hidden frames."""
MOST_SENT = 2_000
"""How many frames may wait in a decoder."""
USUAL_S = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A decoded frame or block of sound, or a placeholder for a damaged one."""

    sense: Sense
    stamp_s: float | None
    """Container time in seconds, made continuous (see `Stamps`)."""
    duration_s: float
    data: VideoFrame | AudioFrame | None
    """None if it was damaged."""
    jumped: bool = False
    """The stream's clock jumped here. Such a piece has no other content."""


class _Sent(NamedTuple):
    """A frame that was sent to the decoder."""

    stamp: int
    duration: int
    corrupt: bool


class Decoder:
    """Decodes one stream. Frames that were sent to the decoder and never came out are declared at their own time.

    What happens to a damaged frame, and when, depends on the codec and its number of threads: an error may be raised
    many packets later, or never. The timestamps that were sent show what is missing, and where.
    """

    def __init__(self, stream: Any, sense: Sense) -> None:
        """Decode `stream` of an open container."""
        self._sense: Sense = sense
        self._codec: Any = stream.codec_context
        self._time_base: Any = stream.time_base
        rate = stream.average_rate if sense == "vision" else None
        self._usual_s = float(1 / rate) if rate else USUAL_S
        self._rate_hz = self._codec.sample_rate if sense == "audio" else 0
        """Sample rate of the container's timestamps."""
        self._sent: list[_Sent] = []
        self._shown: int | None = None
        """Timestamp of the newest decoded frame."""
        self._counted = "avi" in stream.container.format.name
        """Whether the container only counts frames in decoding order: the n-th shown is the n-th in time."""
        self._errors = 0
        """Errors that the decoder reported, and for which no missing frame was found yet."""
        self._declared: int | None = None
        """Timestamp up to which frames were declared lost."""
        self._expected: int | None = None
        """Timestamp of the next block of sound if the container counts continuously."""
        self._next_s = 0.0
        """When the next block of sound should begin."""

    @property
    def pending_s(self) -> float | None:
        """Earliest time of the frames still in the decoder."""
        return float(self._sent[0].stamp * self._time_base) if self._sent else None

    def duration_s(self, packet: Any) -> float:
        """Return the duration of a packet, from the container or a typical value."""
        return float(packet.duration * self._time_base) if packet.duration else self._usual_s

    def decode(self, packet: Any) -> Iterator[Piece]:
        """Decode `packet` and yield the resulting pieces. An empty packet flushes the decoder."""
        from av.error import FFmpegError

        if self._sense == "vision" and packet.size and packet.pts is not None and not self._hidden(packet):
            duration = packet.duration or round(self._usual_s / self._time_base)
            stamp = packet.dts if self._counted and packet.dts is not None else packet.pts
            heappush(self._sent, _Sent(stamp, duration, packet.is_corrupt))
            if len(self._sent) > MOST_SENT:
                heappop(self._sent)
        frames = []
        try:
            frames = self._codec.decode(packet)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError):  # not the file's fault
                raise
            if packet.size and (self._sense == "audio" or packet.pts is None):
                yield self._piece(packet.pts, self.duration_s(packet), None)
            if self._counted and self._sent:
                lost = heappop(self._sent)
                yield self._piece(lost.stamp, float(lost.duration * self._time_base), None)
            self._errors += 1
        for frame in frames:
            yield from self._sound(frame, packet) if self._sense == "audio" else self._picture(frame)
        if not packet.size and self._sent:
            last = max(sent.stamp + sent.duration for sent in self._sent)
            yield from self._lost(last)

    def _picture(self, frame: Any) -> Iterator[Piece]:
        if frame.pts is None:
            yield self._piece(None, self._usual_s, None if frame.is_corrupt else frame)
            return
        if self._counted and self._sent:
            frame.pts = self._sent[0].stamp
        yield from self._lost(frame.pts)
        sent = heappop(self._sent) if self._sent and self._sent[0].stamp == frame.pts else None
        duration = frame.duration or (sent.duration if sent else 0)
        if self._declared is not None and frame.pts < self._declared:
            return
        corrupt = frame.is_corrupt or (sent is not None and sent.corrupt)
        self._shown = frame.pts
        yield self._piece(frame.pts, float(duration * self._time_base) or self._usual_s, None if corrupt else frame)

    def _lost(self, until: int) -> Iterator[Piece]:
        """Declare the frames before `until` that never came out."""
        lost = []
        while self._sent and self._sent[0].stamp < until:
            sent = heappop(self._sent)
            if self._shown is None or sent.stamp > self._shown:
                lost.append(sent.stamp)
        if not lost:
            return
        lost_s = float((until - lost[0]) * self._time_base)
        if self._errors or lost_s >= LOST_S:
            self._errors = max(0, self._errors - len(lost))
            self._declared = until
            yield self._piece(lost[0], lost_s, None)

    def _sound(self, frame: Any, packet: Any) -> Iterator[Piece]:
        duration_s = frame.samples / frame.sample_rate
        stamp_s = None if frame.pts is None else float(frame.pts * self._time_base)
        if frame.sample_rate != self._rate_hz and packet.pts is not None and packet.pts == self._expected:
            # the rate changed, but the container still counts in the old one
            stamp_s = self._next_s
        if stamp_s is not None:
            self._next_s = stamp_s + duration_s
        self._expected = None if packet.pts is None or not packet.duration else packet.pts + packet.duration
        yield Piece(sense="audio", stamp_s=stamp_s, duration_s=duration_s, data=None if frame.is_corrupt else frame)

    def _piece(self, stamp: int | None, duration_s: float, data: Any) -> Piece:
        stamp_s = None if stamp is None else float(stamp * self._time_base)
        return Piece(sense=self._sense, stamp_s=stamp_s, duration_s=duration_s, data=data)

    def _hidden(self, packet: Any) -> bool:
        """Whether a packet yields no visible frame: cut off by an edit list, or only a reference for others."""
        if packet.is_discard:
            return True
        return self._codec.name in ("vp8", "libvpx") and not bytes(packet)[0] >> 4 & 1
