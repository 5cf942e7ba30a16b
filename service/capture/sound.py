"""Sound of a camera → AAC, on the media clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.audio_clock import ClockFilter
from ovavel.runtime.types import Samples
from ovavel.service.capture.ring import Sound

__all__ = ["APART_S", "SoundEncoder", "SoundFormat"]

APART_S = 0.02
"""Sound that is further than this from where the block before it ended is moved to its place."""
MOST_SILENCE_S = 2.0
"""A longer pause is no sound at all; a shorter one is filled."""
_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
"""Those that AAC knows."""
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """Of one camera's clips, whatever its sound changes to: files of one format can be cut from all of it."""

    rate_hz: int
    channels: int

    @property
    def layout(self) -> str:
        """As FFmpeg calls it."""
        return "mono" if self.channels == 1 else "stereo"

    @property
    def bit_rate(self) -> int:
        """Bits a second: music stays music, and telephone sound takes no more than it needs."""
        return self.channels * (64_000 if self.rate_hz > 24_000 else 32_000)


class SoundEncoder:
    """Encodes blocks of sound that come in the order of time."""

    def __init__(self, *, microphone: bool = False) -> None:
        """Encode sound of a stream, or of a `microphone`, whose blocks come with times that jitter."""
        self._clock = ClockFilter(live=True) if microphone else None
        self.format: SoundFormat | None = None
        """Set by the first sound."""
        self._encoder: Any = None
        self._resampler: Any = None
        self._input: tuple[int, int] = (0, 0)
        self._start_s = 0.0
        """Media time of the encoder's first sample."""
        self._taken = 0
        """Samples of the input since then."""

    def push(self, samples: Samples) -> Iterator[Sound]:
        """Take in a block; yield what is encoded."""
        waveform = samples.waveform if len(samples.waveform) <= 2 else samples.waveform.mean(axis=0, keepdims=True)
        if not waveform.shape[1]:
            return
        if self.format is None:
            rate_hz = samples.rate_hz if samples.rate_hz in _RATES_HZ else 48_000
            self.format = SoundFormat(rate_hz, len(waveform))
        kind = (samples.rate_hz, len(waveform))
        late_s = samples.time_s - (self._start_s + self._taken / samples.rate_hz)
        if self._encoder is None or kind != self._input or not -MOST_SILENCE_S < late_s < MOST_SILENCE_S:
            yield from self._begin(kind, samples.time_s)
        else:
            waveform = _moved(waveform, round(self._apart_s(late_s, waveform.shape[1]) * samples.rate_hz))
        yield from self._encode(np.ascontiguousarray(waveform, np.float32))

    def _apart_s(self, late_s: float, samples: int) -> float:
        """How far the next block is to be moved, which by its time is `late_s` after the one before."""
        if self._clock is None:
            return late_s if abs(late_s) > APART_S else 0.0
        jump_s = self._clock.observe(late_s, samples / self._input[0])
        if jump_s:
            self._clock.restart()
            return jump_s
        drift_s = self._clock.offset_s
        if abs(drift_s) <= APART_S:
            return 0.0
        self._clock.corrected(drift_s)
        return drift_s

    def _begin(self, kind: tuple[int, int], time_s: float) -> Iterator[Sound]:
        """Start at another place."""
        import av

        if self._encoder is not None:
            yield from self._packets(None)
        assert self.format is not None
        self._input, self._start_s, self._taken = kind, time_s, 0
        if self._clock is not None:
            self._clock.restart()
        self._encoder = av.CodecContext.create("aac", "w")
        self._encoder.sample_rate, self._encoder.layout = self.format.rate_hz, self.format.layout
        self._encoder.format, self._encoder.bit_rate = "fltp", self.format.bit_rate
        self._encoder.time_base = Fraction(1, self.format.rate_hz)
        self._resampler = av.AudioResampler("fltp", self.format.layout, self.format.rate_hz, frame_size=_BLOCK)

    def _encode(self, waveform: NDArray[np.float32]) -> Iterator[Sound]:
        import av

        if not waveform.shape[1]:
            return
        rate_hz, channels = self._input
        frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="mono" if channels == 1 else "stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, self._taken, Fraction(1, rate_hz)
        self._taken += waveform.shape[1]
        for block in self._resampler.resample(frame):
            yield from self._packets(block)

    def _packets(self, block: Any) -> Iterator[Sound]:
        """What comes out of the encoder for `block`; None empties it."""
        assert self.format is not None
        if block is not None and block.samples < _BLOCK:
            return
        for packet in self._encoder.encode(block):
            time_s = self._start_s + float(packet.pts * packet.time_base)
            yield Sound(bytes(packet), time_s, _BLOCK / self.format.rate_hz)


def _moved(waveform: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    """(C, n) → the same after `by` samples of silence, or without its first `-by` samples."""
    if by <= 0:
        return waveform[:, -by:]
    return np.concatenate([np.zeros((len(waveform), by), np.float32), waveform], axis=1)
