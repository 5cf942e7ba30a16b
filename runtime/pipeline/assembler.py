"""Cuts what a source delivers into aligned seconds: one still and one second of sound each.

Many lines: one state machine, whose steps share what is pending.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from ovavel.runtime.pipeline.audio_timeline import AudioTimeline
from ovavel.runtime.pipeline.channels import Channel, ChannelChooser, Heard
from ovavel.runtime.types import (
    RATE_HZ,
    WINDOW_S,
    Chunk,
    DropCause,
    Frame,
    Gap,
    GapCause,
    Notice,
    Samples,
    Sense,
    Window,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AssemblerCounts", "WindowAssembler"]

PATIENCE_S = {True: 2.0, False: 10.0}
"""By `live`: how far one sense may lag behind the other; files interleave the two loosely."""

ON_SCREEN_S = {True: 1.0, False: 5.0}
"""By `live`: how long a frame stays on screen when no other comes. A slide show lasts, a frozen camera does not."""

SHORTEST_TAIL_S = 0.5
"""The last, partial second counts from this length on."""

NEW_CLOCK_S = 60.0
"""A timestamp this far from what came before is a new clock, and no wait.

A source repairs its own clock first, and within tighter bounds, as it knows its container (`sources/media/stamps.py`:
`LEAP_S`). This is the last resort for a source that does not: one wild timestamp must not become hours of windows.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AssemblerCounts:
    """The fate of everything that was pushed: in = used + dropped + pending, for samples and for frames."""

    windows: int
    rate_hz: int
    """Of the samples counted here, and of the windows."""
    samples_in: int
    """After resampling."""
    samples_used: int
    samples_dropped: dict[str, int]
    """By cause."""
    samples_pending: int
    frames_in: int
    frames_used: int
    """Frames that were shown in one window or more."""
    frames_dropped: dict[str, int]
    """By cause; most are "not needed", for a window shows one."""
    frames_pending: int


class _Still:
    """A frame that is converted once at most, however many windows show it."""

    def __init__(self, frame: Frame, *, late: bool) -> None:
        self.frame = frame
        self.late = late  # its own window was out before it came
        self.counted = False
        self.window = math.floor(frame.time_s / WINDOW_S)
        self._image: NDArray[np.uint8] | None = None

    @property
    def used(self) -> bool:
        return self._image is not None

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        if self._image is None:
            self._image = self.frame.image()
        return self._image

    def rank(self, window: int) -> tuple[int, float]:
        """Lowest for the frame nearest the middle of the window, to the microsecond; of two, the earlier."""
        return round(abs(self.frame.time_s - _middle_s(window)) * 1e6), self.frame.time_s


class WindowAssembler:
    """Makes `Window`s of chunks. Pure: no clock, no threads, no I/O; the same chunks give the same windows.

    Window k covers the media time [k, k + 1) s. They come in order from 0, without holes, up to the end of the media.

    - **Frame**: the one nearest the middle of the second, of those inside it. A second without a frame of its own shows
      the last one before its middle, as a screen would, unless that is older than 5 s (1 s live) or the source declared
      a gap since.
    - **Sound**: see `AudioTimeline`; the channel to listen to comes first, see `ChannelChooser`.
    - A window comes out once every sense has passed its end. A sense that lags behind the other by more than
      `patience_s` is not waited for; what it delivers for that window later on is dropped and counted.
    - What is missing is declared in `Window.gaps`; `counts` accounts for every frame and sample.
    - **Notices** go with the next window to come out, unchanged and in order; those after the last one stay in
      `notices`.
    - A timestamp more than 60 s ahead of everything, or behind its own sense, sets a new clock for its sense, which
      continues at the newest time ("timestamp jump").
    """

    def __init__(
        self,
        senses: frozenset[Sense],
        *,
        live: bool,
        rate_hz: int = RATE_HZ,
        patience_s: float | None = None,
        channel: Channel = "first",
    ) -> None:
        """Assemble windows of `senses`; chunks of another sense are ignored. `channel` is the one to listen to.

        `rate_hz` is that of the windows' sound, whatever the source's: `sound_rate` of a bundle's encoders.
        `patience_s` is 2 s when `live`, where the newest data wins, and 10 s for files, which interleave loosely.

        Raises:
            ValueError: no sense at all, or a patience that is not positive.
        """
        if not senses:
            raise ValueError("nothing to assemble: leave at least one of vision and audio on")
        self._patience_s = PATIENCE_S[live] if patience_s is None else patience_s
        if not self._patience_s > 0:
            raise ValueError(f"patience_s is {patience_s}; give a number of seconds above 0")
        self._senses = senses
        self._hold_s = ON_SCREEN_S[live]
        self._index = 0  # of the next window
        self._closed = False
        self._shift_s: dict[Sense, float] = dict.fromkeys(senses, 0.0)
        self._sound = AudioTimeline(live=live, rate_hz=rate_hz)
        self._channels = ChannelChooser(channel)
        self._seen_s = 0.0  # vision has passed this
        self._stills: dict[int, _Still] = {}  # the best so far by window
        self._latest: _Still | None = None  # on screen
        self._interval_s = 0.0  # between the two latest frames
        self._vision_gaps: deque[Gap] = deque()
        self._frames_in = 0
        self._frames_used = 0
        self._frames_dropped: Counter[str] = Counter()
        self._notices: list[Notice] = []  # for the next window

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Those that no window has taken along yet; after `flush`, those that came after the last one."""
        return tuple(self._notices)

    @property
    def counts(self) -> AssemblerCounts:
        """The fate of everything so far."""
        dropped = self._frames_dropped.total()
        return AssemblerCounts(
            windows=self._index,
            rate_hz=self._sound.rate_hz,
            samples_in=self._sound.samples_in,
            samples_used=self._sound.samples_used,
            samples_dropped=dict(self._sound.dropped),
            samples_pending=self._sound.samples_pending,
            frames_in=self._frames_in,
            frames_used=self._frames_used,
            frames_dropped=dict(self._frames_dropped),
            frames_pending=self._frames_in - self._frames_used - dropped,
        )

    @property
    def drift_ppm(self) -> float:
        """Measured rate error of the sound card against the media clock; positive when it runs fast."""
        return self._sound.drift_ppm

    def push(self, chunk: Chunk) -> list[Window]:
        """Take in a chunk; returns the windows it completes, oldest first.

        Raises:
            MediaError: a block of sound whose rate cannot be resampled.
            ValueError: pushed after `flush`.
        """
        if self._closed:
            raise ValueError("push after flush: make a new WindowAssembler for a new stream")
        if isinstance(chunk, Notice):
            self._notices.append(chunk)
            return []
        sense: Sense = chunk.sense if isinstance(chunk, Gap) else "vision" if isinstance(chunk, Frame) else "audio"
        if sense not in self._senses:
            return []
        time_s = chunk.start_s if isinstance(chunk, Gap) else chunk.time_s
        if not math.isfinite(time_s):
            self._refuse(chunk)
            return []
        time_s = self._media_time_s(sense, time_s)
        match chunk:
            case Frame():
                self._push_frame(dataclasses.replace(chunk, time_s=time_s))
            case Samples():
                self._sound.push(dataclasses.replace(chunk, time_s=time_s))
            case Gap():
                # Sources declare a long loss bit by bit; one endless gap must not become a flood of windows.
                end_s = min(time_s + max(0.0, chunk.duration_s), self._newest_s() + NEW_CLOCK_S)
                self._push_gap(dataclasses.replace(chunk, start_s=time_s, duration_s=max(0.0, end_s - time_s)))
        windows = []
        while self._complete():
            windows.append(self._emit(ended=False))
        return windows

    def flush(self) -> list[Window]:
        """End the media; returns what is left, oldest first.

        The last second comes out if it holds half a second of media or more, padded with silence ("end of media"); a
        shorter one is dropped and counted. Nothing can be pushed any more.
        """
        if self._closed:
            return []
        self._closed = True
        ends_s = []
        if "audio" in self._senses:
            self._sound.finish()
            ends_s.append(self._sound.heard_s)
        if self._latest is not None:
            last_s = self._latest.frame.time_s
            if last_s >= max(ends_s, default=0.0):
                # No sound shows how long the last frame lasts: for as long as the one before it was.
                last_s += min(self._interval_s, self._hold_s, 2 * WINDOW_S)
            ends_s.append(last_s)
            self._seen_s = max(self._seen_s, last_s)
        windows = []
        while self._newest_s() >= (self._index + 1) * WINDOW_S:
            windows.append(self._emit(ended=True))
        if ends_s and max(ends_s) - self._index * WINDOW_S >= SHORTEST_TAIL_S:
            windows.append(self._emit(ended=True))
        self._sound.drop_rest(GapCause.END_OF_MEDIA)
        rest = {id(still): still for still in (*self._stills.values(), self._latest) if still is not None}
        self._stills.clear()
        self._latest = None
        for still in rest.values():
            self._release(still)
        return windows

    def _passed_s(self, sense: Sense) -> float:
        return self._seen_s if sense == "vision" else self._sound.passed_s

    def _newest_s(self) -> float:
        return max(self._passed_s(sense) for sense in self._senses)

    def _complete(self) -> bool:
        """Whether the next window can come out: nothing that is worth waiting for is still to come."""
        end_s, newest_s = (self._index + 1) * WINDOW_S, self._newest_s()
        return newest_s >= end_s and all(
            self._passed_s(sense) >= end_s or newest_s - self._passed_s(sense) > self._patience_s
            for sense in self._senses
        )

    def _emit(self, *, ended: bool) -> Window:
        """Make the next window, complete or not."""
        index, start_s, end_s = self._index, self._index * WINDOW_S, (self._index + 1) * WINDOW_S
        captured_s, gaps = [], []
        frame = None
        heard = Heard(None, None)
        if "vision" in self._senses:
            self._hold_until(index + 1)
            still = self._stills.pop(index, None)
            if still is not None:
                self._frames_used += not still.used
                frame = still.image()
                if still.window == index:  # not one that is merely still on screen
                    captured_s.append(still.frame.captured_s)
            gaps += self._take_vision_gaps(start_s, end_s)
            if frame is None and not gaps:
                late = GapCause.END_OF_MEDIA if ended else GapCause.LATE_VIDEO
                cause = GapCause.NO_FRAME if self._seen_s >= end_s else late
                gaps.append(Gap(sense="vision", cause=cause, start_s=start_s, duration_s=WINDOW_S))
        self._index += 1
        if "audio" in self._senses:
            second = self._sound.take(index, missing=GapCause.END_OF_MEDIA if ended else GapCause.LATE_SOUND)
            heard = self._channels.choose(second.waveform)
            gaps += second.gaps
            if heard.waveform is None and second.waveform is not None:
                gaps.append(Gap(sense="audio", cause=GapCause.NO_SUCH_CHANNEL, start_s=start_s, duration_s=WINDOW_S))
            if second.captured_s is not None:
                captured_s.append(second.captured_s)
        notices, self._notices = self._notices, []
        return Window(
            index=index,
            start_s=start_s,
            frame=frame,
            waveform=heard.waveform,
            channel=heard.channel,
            captured_s=max(captured_s, default=None),
            gaps=tuple(gaps),
            notices=tuple(notices),
        )

    def _push_frame(self, frame: Frame) -> None:
        """Keep a frame if it is the best of its window so far, or the latest."""
        self._frames_in += 1
        self._seen_s = max(self._seen_s, frame.time_s)
        still, before = _Still(frame, late=frame.time_s < self._index * WINDOW_S), self._latest
        if before is None or frame.time_s >= before.frame.time_s:
            self._hold_until(still.window)
            self._interval_s = WINDOW_S if before is None else frame.time_s - before.frame.time_s
            self._latest = still
        best = self._stills.get(still.window)
        if not still.late and (best is None or still.rank(still.window) < best.rank(still.window)):
            self._stills[still.window] = still
        for candidate in (before, best, still):
            self._release(candidate)

    def _push_gap(self, gap: Gap) -> None:
        if gap.sense == "audio":
            self._sound.skip(gap)
            return
        self._vision_gaps.append(gap)
        if gap.duration_s > 0:
            self._hold_until(math.ceil(gap.start_s / WINDOW_S - 0.5))
            latest, self._latest = self._latest, None
            self._release(latest)
            self._seen_s = max(self._seen_s, gap.start_s + gap.duration_s)

    def _hold_until(self, window: int) -> None:
        """Give the windows before `window` that have no frame of their own the one on screen."""
        if self._latest is None:
            return
        for index in range(max(self._latest.window + 1, self._index), window):
            if index not in self._stills and _middle_s(index) - self._latest.frame.time_s <= self._hold_s:
                self._stills[index] = self._latest

    def _release(self, still: _Still | None) -> None:
        """Count a frame that nothing refers to any more and that was never shown."""
        if still is None or still.used or still.counted or still is self._latest or still in self._stills.values():
            return
        still.counted = True
        never_out = self._closed and still.window >= self._index
        end = GapCause.END_OF_MEDIA if never_out else DropCause.NOT_NEEDED
        self._frames_dropped[GapCause.LATE_VIDEO if still.late else end] += 1

    def _take_vision_gaps(self, start_s: float, end_s: float) -> list[Gap]:
        """The parts of declared gaps that fall into a window, adjoining ones of one cause as one."""
        parts: list[Gap] = []
        for gap in self._vision_gaps:
            first_s, last_s = max(gap.start_s, start_s), min(gap.start_s + gap.duration_s, end_s)
            if last_s <= first_s and not (gap.duration_s == 0 and gap.start_s < end_s):
                continue
            before = parts[-1] if parts else None
            if before is not None and before.cause == gap.cause:
                first_s = before.start_s
                parts.pop()
            parts.append(dataclasses.replace(gap, start_s=first_s, duration_s=max(0.0, last_s - first_s)))
        self._vision_gaps = deque(
            gap for gap in self._vision_gaps if gap.start_s >= end_s or gap.start_s + gap.duration_s > end_s
        )
        return parts

    def _media_time_s(self, sense: Sense, time_s: float) -> float:
        """Map a timestamp to media time: unchanged but for clocks that leapt."""
        newest_s = self._newest_s()
        media_s = time_s - self._shift_s[sense]
        if self._passed_s(sense) - NEW_CLOCK_S <= media_s <= newest_s + NEW_CLOCK_S:
            return media_s
        # Both senses of a stream leap together: then they also stay together.
        shifts_s = [shift_s for shift_s in self._shift_s.values() if abs(time_s - shift_s - newest_s) < NEW_CLOCK_S]
        self._shift_s[sense] = shifts_s[0] if shifts_s else time_s - newest_s
        media_s = time_s - self._shift_s[sense]
        self._push_gap(Gap(sense=sense, cause=GapCause.TIMESTAMP_JUMP, start_s=media_s, duration_s=0.0))
        return media_s

    def _refuse(self, chunk: Frame | Samples | Gap) -> None:
        """Drop and count a chunk whose time is not a number."""
        match chunk:
            case Frame():
                self._frames_in += 1
                self._frames_dropped[GapCause.INVALID_TIME] += 1
            case Samples():
                self._sound.refuse(chunk, GapCause.INVALID_TIME)


def _middle_s(window: int) -> float:
    return (window + 0.5) * WINDOW_S
