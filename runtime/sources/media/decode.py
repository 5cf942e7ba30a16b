"""Open media with PyAV and decode it piece by piece."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.errors import MediaError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources.access import OPEN_TIMEOUT_S, Access, is_network, open_container, shown_url
from ovavel.runtime.sources.media.decoder import Decoder, Piece
from ovavel.runtime.sources.media.indexed import IndexedTimes
from ovavel.runtime.sources.media.lengths import header_length_s, lacks_end
from ovavel.runtime.sources.media.sizes import PixelLimit
from ovavel.runtime.sources.media.stamps import MOST_REORDERED, Stamped, Stamps
from ovavel.runtime.sources.packet_tap import PacketTap
from ovavel.runtime.types import Sense

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["Media", "Piece", "open_media"]

# H, W frame height and width; n samples in a block

MAX_DEMUX_FAILURES = 100
"""After this many unreadable packets in a row, the rest of a file is given up."""
MOST_APART_S = 10.0
"""In frames; decoding and presentation times further apart than this cannot both be right."""
MOST_HELD_S = 5.0
"""How long the sound of a stream waits at most for frames still in the decoder."""
DECODER_THREADS = min(8, (os.cpu_count() or 1) + 1)
"""Threads for video: one more than cores, as in FFmpeg, which would use up to 16, each with its own frames."""
AAC_RUN_IN = 2_112
"""Most samples of priming that an AAC encoder inserts; MP4 declares them, other containers do not."""
SAMPLE_TYPES = {
    "u8p": np.uint8,
    "s16p": np.int16,
    "s32p": np.int32,
    "s64p": np.int64,
    "fltp": np.float32,
    "dblp": np.float64,
}
"""FFmpeg's planar sample format → NumPy type."""


class Media:
    """An open container and its streams in use. Use it from one thread at a time."""

    def __init__(self, container: InputContainer, *, name: str, audio: bool, video: bool, max_pixels: int) -> None:
        """Choose the streams. Raises MediaError if none is left, or its pictures have more than `max_pixels`."""
        from av.stream import Disposition

        self._container = container
        self.truncated = False
        """Whether the file ended in the middle of a packet or became unreadable. Final after the end."""
        self.tap: PacketTap | None = None
        """Is shown the packets of pictures."""
        self._read_to = 0
        """Byte offset after the last packet read."""
        usable = [stream for stream in container.streams if stream.type in ("audio", "video")]
        undecodable = [stream for stream in usable if getattr(stream, "codec_context", None) is None]
        pictures = [s for s in usable if s.type == "video" and not s.disposition & Disposition.attached_pic]
        sounds = [stream for stream in usable if stream.type == "audio"]
        found: dict[Sense, list[Any]] = {"vision": pictures, "audio": sounds}
        wanted: dict[Sense, bool] = {"vision": video, "audio": audio}
        self.streams: dict[Sense, Any] = {}
        self.undecodable: frozenset[Sense] = frozenset(
            sense for sense in found if wanted[sense] and found[sense] and set(found[sense]) <= set(undecodable)
        )
        """Enabled senses for which FFmpeg has no decoder."""
        self.replaced: set[Sense] = set()
        """Senses whose preferred stream has no decoder, so that another one is used."""
        for sense, streams in found.items():
            default_first = sorted(streams, key=lambda stream: not stream.disposition & Disposition.default)
            decodable = [stream for stream in default_first if stream not in undecodable]
            if wanted[sense] and decodable:
                self.streams[sense] = decodable[0]
                if decodable[0] is not default_first[0]:
                    self.replaced.add(sense)
        if not self.streams:
            has = sorted({stream.type for stream in usable if stream not in undecodable})
            if self.undecodable:
                why = "FFmpeg has no decoder for its streams"
            elif has:
                why = f"it contains only {' and '.join(has)}, which is disabled (or is cover art)"
            else:
                why = "it contains neither video nor audio"
            raise MediaError(f"{name} cannot be used: {why}. Give another file, or disable nothing")
        self._limit: PixelLimit | None = None
        if "vision" in self.streams:
            self._limit = PixelLimit(self.streams["vision"].codec_context, max_pixels, name)
        for sense, stream in self.streams.items():
            stream.thread_type = "AUTO" if sense == "vision" else "SLICE"
            stream.codec_context.thread_count = DECODER_THREADS if sense == "vision" else 1
        self.starts_s: dict[Sense, float] = {
            sense: float(s.start_time * s.time_base) for sense, s in self.streams.items() if s.start_time is not None
        }
        """Start of each stream from the header or from what FFmpeg has read so far; corrected while reading."""
        start_s = self.origin_s
        lengths_s = [self.duration_s or 0.0, (container.duration or 0) / 1e6]  # the latter is FFmpeg's guess
        end_s = None if start_s is None or not any(lengths_s) else start_s + max(lengths_s)
        self._sense_of: dict[int, Sense] = {stream.index: sense for sense, stream in self.streams.items()}
        self._decoders: dict[Sense, Decoder] = {sense: Decoder(s, sense) for sense, s in self.streams.items()}
        self._indexed = IndexedTimes(container, self.streams.values())
        self._stamps: Stamps[Any] = Stamps(self.streams, start_s=start_s, end_s=end_s)

    @property
    def untimed(self) -> bool:
        """Whether the container has no timestamps, so that FFmpeg assumes 25 frames per second."""
        from av.format import Flags

        return Flags.no_timestamps in Flags(self._container.format.flags)

    @property
    def origin_s(self) -> float | None:
        """Stream time at which the first stream in use starts, if known; encoder priming comes before."""
        if not self.starts_s:
            return None
        if len(self.starts_s) == 2 and self.streams["audio"].codec_context.name == "aac":
            run_in_s = AAC_RUN_IN / (self.streams["audio"].codec_context.sample_rate or 1)
            if 0 < self.starts_s["vision"] - self.starts_s["audio"] <= run_in_s:
                return self.starts_s["vision"]
        return min(self.starts_s.values())

    @property
    def duration_s(self) -> float | None:
        """Length from the earliest start to the latest end of the streams in use, if a header gives it."""
        return header_length_s(self._container, self.streams.values(), self.origin_s or 0.0)

    @property
    def run_in_s(self) -> float:
        """How much of `duration_s` may be encoder priming, which is not played: Matroska's length includes it.

        It does so only if the sound ends last, which the header does not say. FFmpeg subtracts the priming from the
        sound's timestamps. Unused streams count too: the length is that of the whole file.
        """
        if "matroska" not in self._container.format.name:
            return 0.0
        codecs = [stream.codec_context for stream in self._container.streams.audio if stream.codec_context is not None]
        return max((codec.delay / codec.sample_rate for codec in codecs if codec.sample_rate), default=0.0)

    def end_s(self, sense: Sense) -> float | None:
        """Stream time at which `sense` ends according to the header, if given."""
        stream = self.streams[sense]
        if self.duration_s is None:
            return None
        if stream.start_time is not None and stream.duration is not None:
            return float((stream.start_time + stream.duration) * stream.time_base)
        return (self.origin_s or 0.0) + self.duration_s

    def packets(self) -> Iterator[Any]:
        """Yield the packets of the streams in use in container order, then an empty one for each stream.

        Raises:
            av.error.FFmpegError: the network failed.
        """
        from av.error import InvalidDataError

        failures = 0
        packets = self._container.demux(*self.streams.values())
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV yields an empty packet for each stream, and fails at one that appeared after the file was opened
                self.truncated = self.truncated or lacks_end(self._container, self._read_to)
                return
            except InvalidDataError:
                failures += 1
                if failures > MAX_DEMUX_FAILURES:
                    self.truncated = True
                    yield from (packet for _, packet in self.empty_packets())
                    return
                packets = self._container.demux(*self.streams.values())
                continue
            failures = 0
            self._read_to = max(self._read_to, (packet.pos or 0) + packet.size)
            if self._indexed.correct(packet):
                yield packet

    def empty_packets(self) -> Iterator[tuple[Sense, Any]]:
        """Yield packets that flush each decoder where the file breaks off."""
        import av

        for sense, stream in self.streams.items():
            packet = av.Packet()
            packet.stream = stream
            yield sense, packet

    def sense_of(self, packet: Any) -> Sense:
        """Return the sense that `packet` belongs to."""
        return self._sense_of[packet.stream.index]

    def note(self, packet: Any, sense: Sense) -> None:
        """Record that `packet` was read, whenever it will be decoded."""
        if packet.size:
            self.truncated = packet.is_corrupt
        self._stamps.note(sense, _stamp_s(packet))

    def read_apart(self) -> None:
        """From now on each stream is read separately, so the position of one says nothing about the other."""
        self._stamps.apart = True

    def decode(self, packet: Any, sense: Sense) -> Iterator[Piece]:
        """The pieces that come out of the decoder when `packet` goes in, in the order of their time.

        Raises:
            MediaError: its pictures are too large, which a container does not always say before.
        """
        decoder = self._decoders[sense]
        if sense == "audio":
            for piece in decoder.decode(packet):
                for each in self._stamps.push(sense, piece.stamp_s, piece.duration_s, piece):
                    yield from _moved(each)
            if not packet.size:
                for each in self._stamps.flush(sense):
                    yield from _moved(each)
            return
        if packet.size:
            # Matroska holds times of presentation alone, from which FFmpeg guesses those of decoding
            ordered = packet.dts is not None and "matroska" not in self._container.format.name
            stamp_s = _stamp_s(packet, ordered=ordered)
            ready = self._stamps.push(sense, stamp_s, decoder.duration_s(packet), packet, ordered=ordered)
        else:
            ready = [*self._stamps.flush(sense), Stamped(packet, 0.0, False)]
        for each in ready:
            moved = _shifted(each)
            if each.jumped:
                stamp_s = None if moved.pts is None else float(moved.pts * moved.time_base)
                yield Piece(sense=sense, stamp_s=stamp_s, duration_s=0.0, data=None, jumped=True)
            if self._limit is not None:
                self._limit.before(moved)
            if self.tap is not None and moved.size:
                self.tap.packet(moved)
            yield from decoder.decode(moved)
        if self._limit is not None and not packet.size:
            self._limit.finish()

    def pieces(self) -> Iterator[Piece]:
        """Decode in container order until the end. Sound waits for older frames still in the decoder.

        Raises:
            av.error.FFmpegError: the network failed.
        """
        sound: deque[Piece] = deque()
        for packet in self.packets():
            sense = self.sense_of(packet)
            self.note(packet, sense)
            if sense == "vision":
                yield from self.decode(packet, sense)
            else:
                sound += self.decode(packet, sense)
            while sound and not self._waits(sound):
                yield sound.popleft()
        yield from sound

    def _waits(self, sound: deque[Piece]) -> bool:
        """Whether the oldest piece of `sound` should wait for a frame."""
        pending_s = self._decoders["vision"].pending_s if "vision" in self._decoders else None
        first_s, last_s = sound[0].stamp_s, sound[-1].stamp_s
        if pending_s is None or first_s is None or last_s is None:
            return False
        return pending_s < first_s and 0 <= last_s - first_s < MOST_HELD_S

    def decode_at_once(self) -> None:
        """Decode without delay: frame threading is faster, but each thread holds back one frame."""
        if "vision" in self.streams:
            self.streams["vision"].thread_type = "SLICE"

    def close(self) -> None:
        """Close the container."""
        if self.tap is not None:
            self.tap.close()
            self.tap = None
        self._container.close()


def open_media(url: str, *, audio: bool, video: bool, access: Access | None = None) -> Media:
    """Open a file or network stream and find its streams, without decoding. `access`: what it may open in turn.

    Raises:
        UsageError: the scheme of the address is not supported.
        MediaError: it does not exist, cannot be reached, is not a media file, contains none of the enabled senses, or
            has frames that are too large.
    """
    from av.error import ArgumentError, ExitError, FFmpegError

    access = access or Access()
    name = shown_url(url)
    try:
        container = open_container(url, access)
    except ExitError:
        # FFmpeg's errors contain the address with its password, so they are not chained
        raise MediaError(f"{name} cannot be opened: no data for {OPEN_TIMEOUT_S:g} s; check the address") from None
    except (FFmpegError, OSError, ValueError) as error:
        reason = redacted(getattr(error, "strerror", None) or str(error), url)
        advice = "check the address" if is_network(url) else "it is not a media file, or its end is missing"
        if isinstance(error, ArgumentError):
            advice = "it may be a playlist: give one of its entries" + (
                ", or --allow-private" if is_network(url) else ""
            )
        raise MediaError(f"{name} cannot be opened: {reason} ({advice})") from None
    try:
        return Media(container, name=name, audio=audio, video=video, max_pixels=access.max_pixels)
    except BaseException:
        container.close()
        raise


def _stamp_s(packet: Any, *, ordered: bool = True) -> float | None:
    """Time of a packet, that of decoding if that is known and `ordered`."""
    stamp = packet.dts if packet.dts is not None and (ordered or packet.pts is None) else packet.pts
    return None if stamp is None else float(stamp * packet.time_base)


def _shifted(stamped: Stamped[Any]) -> Any:
    """A packet of pictures with its timestamps corrected, so that its pictures come out with them."""
    packet = stamped.item
    if stamped.shift_s is None:
        packet.pts = packet.dts = None
    elif stamped.shift_s:
        ticks = round(stamped.shift_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
    known = packet.pts is not None and packet.dts is not None
    if known and abs(packet.pts - packet.dts) * packet.time_base > MOST_REORDERED * MOST_APART_S:
        packet.pts = None
    return packet


def _moved(stamped: Stamped[Piece]) -> Iterator[Piece]:
    """A block of sound with its time corrected, and before it that its clock jumped."""
    piece, stamp_s = stamped.item, None
    if piece.stamp_s is not None and stamped.shift_s is not None:
        stamp_s = piece.stamp_s + stamped.shift_s
    if stamped.jumped:
        yield Piece(sense=piece.sense, stamp_s=stamp_s, duration_s=0.0, data=None, jumped=True)
    yield replace(piece, stamp_s=stamp_s)
