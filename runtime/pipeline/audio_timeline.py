"""Sound on the media clock: what blocks and their timestamps say, made into aligned seconds at one rate.

Shapes: C channels; n samples. Positions are whole samples at the rate of the timeline since the start of the media.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soxr

from ovavel.runtime.errors import MediaError
from ovavel.runtime.pipeline.audio_clock import JUMP_S, ClockFilter
from ovavel.runtime.types import RATE_HZ, DropCause, Gap, GapCause, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AudioTimeline"]

LOUDEST = 1e6
"""Beyond this a sample is as invalid as NaN: it would overflow in the resampler."""

RATES_HZ = (1_000, 768_000)
"""Rates that sound is resampled from."""

SLIP_S = {True: 0.005, False: 0.010}
"""By `live`: drift is corrected once it has grown to this; below it, timestamps of a file are merely rounded."""


class Second(NamedTuple):
    """One second of sound."""

    waveform: NDArray[np.float32] | None
    """(C, n) float32 at the rate of the timeline, or None without a single sample."""
    gaps: tuple[Gap, ...]
    captured_s: float | None
    """Monotonic clock when its last sample arrived; None without a single sample."""


class _Piece(NamedTuple):
    """Samples that lie within one second."""

    start: int
    samples: NDArray[np.float32]
    """(n, C)"""
    captured_s: float


class AudioTimeline:
    """Resamples blocks to one rate and lays them out on the media clock. Pure: no clock, no I/O.

    Timestamps decide where a run of blocks begins; from there on samples are counted. When the counted position drifts
    off the timestamps, samples are skipped or silence is inserted, at the edge of a second only. Every sample that
    comes out of the resampler is either in one second that `take` returns or counted in `dropped`.
    """

    def __init__(self, *, live: bool, rate_hz: int = RATE_HZ) -> None:
        self.rate_hz = rate_hz
        """Of the seconds that it gives."""
        self.samples_in = 0
        """Samples so far, after resampling."""
        self.samples_used = 0
        self.dropped: Counter[str] = Counter()
        """Samples that are in no second, by cause."""
        self._clock = ClockFilter(live=live)
        self._jump = round(JUMP_S[live] * self.rate_hz)
        self._slip_s = SLIP_S[live]
        self._format: tuple[int, int] | None = None  # rate and channels of the run; None between runs
        self._resampler: soxr.ResampleStream | None = None
        self._origin = 0  # position of the run's first sample, slips included
        self._run_in = 0  # samples that entered the run, in the source's rate
        self._last_in = 0  # the same at the latest timestamp
        self._at = 0  # position of the next sample to come
        self._end = 0  # everything before it is placed or a known hole
        self._known = 0  # the source declared gaps up to here, and they were taken
        self._taken = 0  # everything before it was returned by `take`
        self._overlap: GapCause | DropCause = DropCause.BEFORE_THE_START  # why samples before `_end` are dropped
        self._captured_s = 0.0  # of the newest block
        self._pieces: deque[_Piece] = deque()
        self._holes: deque[tuple[int, int, GapCause]] = deque()  # start, end, cause
        self._declared: deque[tuple[int, GapCause]] = deque()  # where a gap that the source declared ends, cause
        self._notes: dict[tuple[int, GapCause, int], tuple[float, int]] = {}  # second, cause, rate → start_s, samples

    @property
    def passed_s(self) -> float:
        """Media time up to which nothing more is to come."""
        return max(self._end, self._known, self._declared[-1][0] if self._declared else 0) / self.rate_hz

    @property
    def heard_s(self) -> float:
        """Media time at which the last sample ends."""
        return self._end / self.rate_hz

    @property
    def drift_ppm(self) -> float:
        """Measured rate error of the sound card; positive when it runs fast."""
        return -self._clock.drift * 1e6

    @property
    def samples_pending(self) -> int:
        """Samples that wait to be taken."""
        return sum(len(piece.samples) for piece in self._pieces)

    def push(self, block: Samples) -> None:
        """Place a block. It may be kept without a copy, so it must not be altered any more.

        Raises:
            MediaError: its rate is beyond what can be resampled.
        """
        channels, n = block.waveform.shape
        if n == 0 or channels == 0:
            return
        if not RATES_HZ[0] <= block.rate_hz <= RATES_HZ[1]:
            raise MediaError(
                f"sound at {block.time_s:.3f} s has a rate of {block.rate_hz} Hz; "
                f"rates from {RATES_HZ[0]} to {RATES_HZ[1]} Hz can be resampled. Convert it first."
            )
        self._locate(block.time_s, (block.rate_hz, channels))
        samples = self._clean(block.waveform, block.rate_hz)
        self._run_in += n
        self._captured_s = block.captured_s
        self._place(self._resample(samples, last=False), block.captured_s)

    def skip(self, gap: Gap) -> None:
        """Take in a gap that the source declares; nothing else is to come before its end."""
        end = round((gap.start_s + gap.duration_s) * self.rate_hz)
        if end <= round(self.passed_s * self.rate_hz):
            # Nothing more is missing, but it was declared and has to be counted.
            self._note(round(gap.start_s * self.rate_hz), gap.cause, 0)
            return
        self.finish()
        if self._declared and self._declared[-1][1] == gap.cause:
            self._declared.pop()
        self._declared.append((end, gap.cause))

    def finish(self) -> None:
        """End the run: bring out what the resampler still holds. The next block is placed by its timestamp."""
        if self._format is not None:
            self._place(self._resample(np.zeros((0, self._format[1]), np.float32), last=True), self._captured_s)
        self._format = self._resampler = None

    def take(self, index: int, *, missing: GapCause) -> Second:
        """Return second `index`, its lost stretches silent and listed. Seconds are taken in order, from 0.

        `missing` is the cause for what has not come and will not be waited for.
        """
        start, end = index * self.rate_hz, (index + 1) * self.rate_hz
        self._taken = end
        pieces = []
        while self._pieces and self._pieces[0].start < end:
            pieces.append(self._pieces.popleft())

        holes = [hole for hole in self._holes if hole[0] < end]
        holes += self._explain(max(start, self._end), end, missing)
        gaps = [
            Gap(sense="audio", cause=cause, start_s=first / self.rate_hz, duration_s=(last - first) / self.rate_hz)
            for first, last, cause in ((max(first, start), min(last, end), cause) for first, last, cause in holes)
            if last > first
        ]
        self._holes = deque(hole for hole in self._holes if hole[1] > end)
        while self._declared and self._declared[0][0] <= end:
            self._known = self._declared.popleft()[0]
        for second, cause, rate_hz in [note for note in self._notes if note[0] <= index]:
            start_s, n = self._notes.pop((second, cause, rate_hz))
            gaps.append(Gap(sense="audio", cause=cause, start_s=start_s, duration_s=n / rate_hz))
        gaps.sort(key=lambda gap: (gap.start_s, gap.cause))

        if not pieces:
            return Second(None, tuple(gaps), None)
        waveform = np.zeros((max(piece.samples.shape[1] for piece in pieces), self.rate_hz), np.float32)
        for piece in pieces:
            n, channels = piece.samples.shape
            part = waveform[:, piece.start - start : piece.start - start + n]
            part[:channels] = piece.samples.T
            part[channels:] = piece.samples[:, 0]  # the channel count changed within the second
            self.samples_used += n
        return Second(waveform, tuple(gaps), max(piece.captured_s for piece in pieces))

    def refuse(self, block: Samples, cause: GapCause) -> None:
        """Drop and count a block that cannot be placed."""
        n = round(block.waveform.shape[1] * self.rate_hz / block.rate_hz) if block.rate_hz > 0 else 0
        self.samples_in += n
        self.dropped[cause] += n
        self._note(self._end, cause, n)

    def drop_rest(self, cause: GapCause) -> None:
        """Drop and count all that waits, at the end of the media."""
        if self._pieces:
            self.dropped[cause] += self.samples_pending
        self._pieces.clear()

    def _locate(self, time_s: float, sound_format: tuple[int, int]) -> None:
        """Find where the next block goes: on in the run, or at the start of a new one."""
        if self._format is None:
            start = round(time_s * self.rate_hz)
            if 0 < self._end - start < self._jump:
                start = self._end  # jitter after a hole; the clock filter sees to the rest
            self._begin(start, sound_format)
            return
        position_s = self._origin / self.rate_hz + self._run_in / self._format[0]
        elapsed_s = (self._run_in - self._last_in) / self._format[0]
        self._last_in = self._run_in
        jump_s = self._clock.observe(time_s - position_s, elapsed_s)
        if jump_s or self._format != sound_format:
            self.finish()
            self._begin(self._at + round(jump_s * self.rate_hz), sound_format, new_clock=jump_s != 0)

    def _begin(self, start: int, sound_format: tuple[int, int], *, new_clock: bool = True) -> None:
        """Start a run at a position; with a `new_clock` unless only the format changes."""
        never = self._overlap is DropCause.BEFORE_THE_START and self._end == 0
        for hole in self._explain(self._end, start, GapCause.NO_SOUND_YET if never else GapCause.LOST_SAMPLES):
            self._holes.append(hole)
        self._declared.clear()
        before = never and start < 0
        self._overlap = DropCause.BEFORE_THE_START if before else DropCause.OVERLAPPING_SAMPLES
        self._end = max(self._end, start)
        self._at = self._origin = start
        self._run_in = self._last_in = 0
        if new_clock:
            self._clock.restart()
        self._format = sound_format
        rate_hz, channels = sound_format
        if rate_hz != self.rate_hz:
            self._resampler = soxr.ResampleStream(rate_hz, self.rate_hz, channels, dtype="float32", quality="HQ")

    def _explain(self, start: int, end: int, missing: GapCause) -> list[tuple[int, int, GapCause]]:
        """Split a hole by what the source declared; what is left is `missing`, unless it is mere jitter."""
        holes = []
        for until, cause in self._declared:
            if start < min(until, end):
                last = min(until, end)
                if end - last < self._jump and until == self._declared[-1][0]:
                    last = end
                holes.append((start, last, cause))
                start = last
        return [*holes, (start, end, missing)] if start < end else holes

    def _clean(self, waveform: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
        """(C, n) → (n, C) in memory order, with invalid samples silent and noted."""
        samples = np.ascontiguousarray(waveform.T, dtype=np.float32)
        if not (samples.min() >= -LOUDEST and samples.max() <= LOUDEST):  # NaN fails both
            valid = np.abs(samples) <= LOUDEST
            samples = np.where(valid, samples, np.float32(0))
            places = self._origin / self.rate_hz + (self._run_in + np.nonzero(~valid.all(axis=1))[0]) / rate_hz
            for second in np.unique(np.floor(places)):
                inside = places[np.floor(places) == second]
                self._note(round(inside[0] * self.rate_hz), GapCause.INVALID_SAMPLES, len(inside), rate_hz)
        return samples

    def _resample(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        """(n, C) in the rate of the run → (n, C) in that of the timeline, as far as it is ready."""
        if self._resampler is None:
            return samples
        resampled: NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        return resampled

    def _place(self, samples: NDArray[np.float32], captured_s: float) -> None:
        """Put (n, C) resampled samples where they belong, cut at the edges of seconds."""
        self.samples_in += len(samples)
        while len(samples):
            if self._at < self._end:
                n = min(len(samples), self._end - self._at)
                self.dropped[self._overlap] += n
                if self._overlap is GapCause.CLOCK_DRIFT:  # what overlaps was heard before: nothing is missing
                    self._note(self._end, self._overlap, n)
            elif self._at < self._taken:
                n = min(len(samples), self._taken - self._at)
                self.dropped[GapCause.LATE_SOUND] += n  # the gap was declared when the second was taken
                self._end = self._at + n
            else:
                n = min(len(samples), self.rate_hz - self._at % self.rate_hz)
                self._pieces.append(_Piece(self._at, samples[:n], captured_s))
                self._end = self._at + n
            self._at += n
            samples = samples[n:]
            if self._at == self._end and self._at % self.rate_hz == 0:
                self._correct()

    def _correct(self) -> None:
        """At the edge of a second, follow the clock if it has drifted far enough for certain."""
        offset_s = self._clock.offset_s
        if abs(offset_s) <= max(self._slip_s, 2 * self._clock.uncertainty_s):
            return
        slip = round(offset_s * self.rate_hz)
        self._clock.corrected(slip / self.rate_hz)
        self._at += slip
        self._origin += slip
        if slip > 0:
            self._holes.append((self._end, self._at, GapCause.CLOCK_DRIFT))
            self._end = self._at
        else:
            self._overlap = GapCause.CLOCK_DRIFT

    def _note(self, position: int, cause: GapCause, n: int, rate_hz: int | None = None) -> None:
        """Count `n` samples under a cause in the second of a position, or in the next one to be taken."""
        position = max(position, self._taken)
        key = (position // self.rate_hz, cause, rate_hz or self.rate_hz)
        start_s, so_far = self._notes.get(key, (position / self.rate_hz, 0))
        self._notes[key] = (min(start_s, position / self.rate_hz), so_far + n)
