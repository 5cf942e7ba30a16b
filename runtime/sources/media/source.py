"""Source for recordings and network streams."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources.access import Access, is_network, shown_url
from ovavel.runtime.sources.connection import GAP_EVERY_S, Connection
from ovavel.runtime.sources.media.arrays import PictureConverter, to_waveform
from ovavel.runtime.sources.media.decode import Media, Piece, open_media
from ovavel.runtime.sources.media.fingerprint import fingerprint
from ovavel.runtime.sources.media.media_clock import Timeline
from ovavel.runtime.sources.media.ordered import OrderedMedia
from ovavel.runtime.sources.media.reader import StreamReader
from ovavel.runtime.sources.media.stamps import HOLE_S, LEAP_S
from ovavel.runtime.sources.packet_tap import OpenTap, PacketTap
from ovavel.runtime.sources.track import Track
from ovavel.runtime.types import Chunk, Frame, Gap, GapCause, Notice, Samples, Sense

__all__ = ["MediaSource"]

SENSE_WORD: dict[Sense, str] = {"vision": "video", "audio": "audio"}
HOLD_S = 0.5
"""A frame that is shown longer than this is repeated at this interval."""
ROUNDING_S = 1e-3
TRUNCATED_S = 1.0
"""A file that ends this much before the length in its header is truncated."""
CUT_S = 0.25
"""The same for a file that ends in the middle of a packet."""
MOST_TRUNCATED_S = 3600.0
"""Longer durations in a header are ignored."""
LIVE_PATIENCE_S = 3.0


class MediaSource:
    """Reads a file or an RTSP, HTTP or UDP stream with PyAV. Frames are converted to RGB on demand.

    Media time 0 is the earliest start of the streams that are used. A network stream without a length is `live`: its
    reader runs in a thread of its own, and when it ends, freezes or breaks, this is reported as a `Notice`, the seconds
    that pass are yielded as gaps "stream lost", and it is opened again after 1, 2, 4 … at most 10 seconds.

    Raises:
        UsageError: both audio and video are disabled, or the scheme of the address is not supported.
        MediaError: it cannot be opened, contains none of the enabled senses, has frames that are too large, or leads
            from a public address into the local network.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        audio: bool = True,
        video: bool = True,
        realtime: bool = False,
        access: Access | None = None,
        tap: OpenTap | None = None,
    ) -> None:
        """Open `url` and find its streams; `realtime` limits a recording to playback speed.

        `access` says how much the source is trusted with large frames and with addresses of the local network. `tap`
        is for those who keep the packets of pictures; one without timestamps has none to show.
        """
        if not (audio or video):
            raise UsageError("neither audio nor video of the source is enabled; disable at most one")
        self._url = str(url)
        self.name = shown_url(self._url)
        self._open: Callable[[], Media] = partial(
            open_media, self._url, audio=audio, video=video, access=access or Access()
        )
        self._tap = tap
        self._media: Media | None = self._open()
        self.senses: frozenset[Sense] = frozenset(self._media.streams)
        self.tracks: dict[Sense, Track] = {sense: Track.of(stream) for sense, stream in self._media.streams.items()}
        """What the container said of the streams in use when it was opened."""
        self.undecodable: frozenset[Sense] = self._media.undecodable
        """Senses for which FFmpeg has no decoder."""
        self.duration_s: float | None = self._media.duration_s
        """Length according to the header, if any; after reading a recording, its actual length."""
        self._run_in_s = 0.0
        """How much of the length in the header may not be played."""
        self._endless = is_network(self._url) and self.duration_s is None
        self._realtime = realtime and not self._endless
        self.live = realtime or self._endless
        self.recorded = not self._endless
        if self.live:
            self._media.decode_at_once()
        self._stopping = threading.Event()
        self._started = threading.Lock()
        self._timeline = Timeline(self.senses, patience_s=LIVE_PATIENCE_S if self._endless else HOLE_S)
        self._jumped = False
        self._pictures = PictureConverter()
        self._held: tuple[Any, float, float] | None = None
        """A frame that is shown for long (None if damaged), when to repeat it, and until when."""
        self._found = tuple(self._shortcomings(self._media, {"vision": video, "audio": audio}))

    def chunks(self) -> Iterator[Chunk]:
        """Yield frames and sound in the order of the media until it ends or `close` is called. Call it once.

        Raises:
            MediaError: nothing in it could be decoded.
        """
        if not self._started.acquire(blocking=False) or self._media is None:
            return
        media, self._media = self._tapped(self._media), None
        yield from map(self._notice, self._found)
        if self._endless:
            yield from self._follow(media)
        else:
            begin_s = time.monotonic()
            for chunk in self._read(media):
                if self._realtime and not self._sleep_until(begin_s + _end_s(chunk)):
                    return
                yield replace(chunk, captured_s=time.monotonic()) if isinstance(chunk, Frame | Samples) else chunk

    def fingerprint(self) -> str | None:
        """A hash of a recording's content, wherever it lies; None for what is no file here."""
        return fingerprint(Path(self._url)) if self.recorded else None

    def close(self) -> None:
        """End `chunks`, from any thread. A reader blocked in the network ends at its time-out."""
        self._stopping.set()
        if self._started.acquire(blocking=False) and self._media is not None:
            self._media.close()
            self._media = None

    def _shortcomings(self, media: Media, wanted: dict[Sense, bool]) -> Iterator[str]:
        """What is wanted of `media` and it lacks, or has in a format without a decoder."""
        for sense, is_wanted in wanted.items():
            if sense in media.undecodable:
                yield f"{self.name} has {SENSE_WORD[sense]} that cannot be used: FFmpeg has no decoder for it"
            elif sense in media.replaced:
                yield f"{self.name} has {SENSE_WORD[sense]} that FFmpeg has no decoder for; another track is used"
            elif is_wanted and sense not in self.senses:
                yield f"{self.name} has no {SENSE_WORD[sense]}"

    def _notice(self, message: str) -> Notice:
        return Notice(time_s=self._timeline.position_s, message=message)

    def _read(self, media: Media) -> Iterator[Chunk]:
        """Read a recording in this thread."""
        decoded: set[Sense] = set()
        started = False
        ordered = OrderedMedia(media, self._open)
        try:
            for piece in ordered.pieces():
                if self._stopping.is_set():
                    return
                if not started:  # the start of each stream is only known now
                    self._timeline.start(media.origin_s)
                    self.duration_s, self._run_in_s = media.duration_s, media.run_in_s
                    started = True
                if piece.data is not None:
                    decoded.add(piece.sense)
                yield from self._place(piece, time.monotonic(), media.tap)
        finally:
            ordered.close()
            media.close()
        if not decoded:
            why = "all of it is damaged" if ordered.found else "it contains only a header"
            raise MediaError(f"nothing in {self.name} could be decoded ({redacted(ordered.broken, self._url) or why})")
        for sense in sorted(self.senses - decoded):
            found = sense in ordered.found
            self.undecodable |= {sense} if found else set()
            why = "could be decoded: all of it is damaged" if found else "is present except its header"
            yield self._notice(f"nothing of the {SENSE_WORD[sense]} in {self.name} {why}")
        yield from self._end(cut=media.truncated or bool(ordered.broken))

    def _follow(self, media: Media) -> Iterator[Chunk]:
        """Read a network stream in a thread, so that a blocked read blocks nothing else."""

        def reopen() -> Media:
            again = self._open()
            again.decode_at_once()
            return self._tapped(again)

        def connect() -> StreamReader:
            return StreamReader(self.name, reopen, address=self._url, again=True)

        self._timeline.start(None if media.untimed else media.origin_s)
        first = StreamReader(self.name, lambda: media, address=self._url, again=False)
        zero_s = time.monotonic()  # on the wall, when the newest data is at media time 0
        connection = Connection(self.name, first, connect, zero_s)
        told_s = 0.0
        try:
            while not self._stopping.is_set():
                feed = cast("StreamReader", connection.feed)
                piece = feed.get(timeout_s=0.1)
                now_s = time.monotonic()
                if piece is not None:
                    if connection.lost:
                        # media time continues with the wall clock, at the same offset as before
                        media_s = max(self._timeline.position_s, now_s - zero_s)
                        yield from self._timeline.lose(GapCause.STREAM_LOST, media_s)
                        self._timeline.start(piece.stamp_s, at_s=media_s)
                    connection.arrived(now_s)
                    yield from connection.notices(self._timeline.position_s)
                    for chunk in self._place(piece, now_s, feed.tap):
                        if isinstance(chunk, Frame | Samples):
                            zero_s = min(zero_s, now_s - chunk.time_s)
                        yield chunk
                else:
                    connection.check(now_s)
                    yield from connection.notices(self._timeline.position_s)
                    if connection.lost and now_s - told_s >= GAP_EVERY_S:
                        told_s, self._held = now_s, None
                        yield from self._timeline.lose(GapCause.STREAM_LOST, now_s - zero_s)
        finally:
            connection.close()

    def _tapped(self, media: Media) -> Media:
        if self._tap is not None and "vision" in media.streams and not media.untimed:
            media.tap = self._tap(media.streams["vision"])
        return media

    def _place(self, piece: Piece, now_s: float, tap: PacketTap | None) -> Iterator[Chunk]:
        """Yield the chunks of `piece`, and before them any gaps."""
        if piece.jumped:
            jump = self._timeline.jump(piece.sense, piece.stamp_s)
            self._jumped = True
            where = f"{self.name} jump at {jump.start_s:.3f} s"
            yield self._notice(f"timestamps of the {SENSE_WORD[jump.sense]} in {where}")
            yield jump
            return
        time_s, gaps, cut_s = self._timeline.place(piece.sense, piece.stamp_s, piece.duration_s)
        if tap is not None and self._timeline.offset_s is not None:
            tap.placed(self._timeline.offset_s)
        known: list[Chunk] = [step for gap in (*gaps, *self._timeline.overdue()) for step in _in_steps(gap)]
        if time_s is None:
            yield from known
            return
        known += self._hold(time_s, now_s)
        # in order of time, so that the assembler need not give up one sense while waiting for the other
        yield from sorted(known, key=_start_s)
        if piece.sense == "vision":
            hold_s = min(piece.duration_s, LEAP_S) if self._endless else piece.duration_s
            yield self._show(piece.data, time_s, time_s + hold_s, now_s)
        elif piece.data is None:
            yield Gap(sense=piece.sense, cause=GapCause.DAMAGED_AUDIO, start_s=time_s, duration_s=piece.duration_s)
        else:
            data: Any = piece.data
            waveform, rate_hz = to_waveform(data), data.sample_rate
            waveform = waveform[:, round(cut_s * rate_hz) :]
            yield Samples(time_s=time_s, captured_s=now_s, waveform=waveform, rate_hz=rate_hz)

    def _show(self, picture: Any, start_s: float, end_s: float, now_s: float) -> Frame | Gap:
        """Return a frame, or a gap if it is damaged. If it is shown for longer, `_hold` repeats it."""
        self._held = (picture, start_s + HOLD_S, end_s) if end_s - start_s > HOLD_S else None
        if picture is not None:
            return Frame(time_s=start_s, captured_s=now_s, image=self._pictures.image_of(picture))
        duration_s = min(end_s - start_s, HOLD_S)
        return Gap(sense="vision", cause=GapCause.DAMAGED_VIDEO, start_s=start_s, duration_s=duration_s)

    def _hold(self, until_s: float, now_s: float) -> Iterator[Chunk]:
        """Repeat the held frame for the time up to `until_s`."""
        while self._held is not None and self._held[1] < min(until_s, self._held[2]) - ROUNDING_S:
            picture, start_s, end_s = self._held
            yield self._show(picture, start_s, end_s, now_s)

    def _end(self, *, cut: bool) -> Iterator[Chunk]:
        """Yield remaining frames and the missing end of a recording; `cut`: it ends in the middle of a packet."""
        last: list[Chunk] = [step for gap in self._timeline.finish() for step in _in_steps(gap)]
        yield from sorted([*last, *self._hold(math.inf, time.monotonic())], key=_start_s)
        end_s = self._timeline.position_s
        # the length in the header is in stream time, and means nothing after a jump
        claimed_s = None if self._jumped else self.duration_s
        if claimed_s is not None:
            claimed_s = max(claimed_s - self._run_in_s, min(claimed_s, end_s))
        missing_s = 0.0 if claimed_s is None else claimed_s - end_s
        if missing_s > (CUT_S if cut else TRUNCATED_S) or (cut and claimed_s is None):
            yield self._notice(f"{self.name} is truncated: it ends at {end_s:.3f} s" + _of(claimed_s))
            missing_s = min(missing_s, MOST_TRUNCATED_S)
            while self._timeline.position_s < end_s + missing_s:
                until_s = min(self._timeline.position_s + HOLE_S, end_s + missing_s)
                yield from self._timeline.lose(GapCause.TRUNCATED, until_s)
        unsure = claimed_s is None or abs(claimed_s - self._timeline.position_s) > CUT_S
        self.duration_s = self._timeline.position_s if unsure else claimed_s

    def _sleep_until(self, when_s: float) -> bool:
        """Sleep to `when_s` on the monotonic clock; false if `close` was called meanwhile."""
        return not self._stopping.wait(max(0.0, when_s - time.monotonic()))


def _in_steps(gap: Gap) -> Iterator[Gap]:
    """Split `gap` into steps of about a second."""
    start_s, end_s = gap.start_s, gap.start_s + gap.duration_s
    while end_s - start_s > 1.5:
        yield replace(gap, start_s=start_s, duration_s=1.0)
        start_s += 1
    yield replace(gap, start_s=start_s, duration_s=end_s - start_s)


def _start_s(chunk: Chunk) -> float:
    return chunk.start_s if isinstance(chunk, Gap) else chunk.time_s


def _end_s(chunk: Chunk) -> float:
    """Return the media time at which a player finishes `chunk`'s sound or shows its frame."""
    if isinstance(chunk, Samples):
        return chunk.time_s + float(chunk.waveform.shape[1]) / chunk.rate_hz
    return chunk.start_s + chunk.duration_s if isinstance(chunk, Gap) else chunk.time_s


def _of(duration_s: float | None) -> str:
    return "" if duration_s is None else f" of {duration_s:.3f} s"
