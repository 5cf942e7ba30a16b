"""What a source of media gave, by kind."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Gap, Notice, Samples
from support.media_factory import make_clip, tone

MP2_SOUND: dict = {
    "audio_codec": "mp2",
    "audio_format": "s16",
    "waveform": (tone(2, 16_000) * 30_000).astype(np.int16),
}


class Played:
    """All that a source gave, by kind."""

    def __init__(self, path: Path, **options: bool) -> None:
        self.source = MediaSource(path, **options)
        self.chunks: list[Chunk] = list(self.source.chunks())
        self.frames = [chunk for chunk in self.chunks if isinstance(chunk, Frame)]
        self.blocks = [chunk for chunk in self.chunks if isinstance(chunk, Samples)]
        self.gaps = [chunk for chunk in self.chunks if isinstance(chunk, Gap)]
        self.reported = [chunk.message for chunk in self.chunks if isinstance(chunk, Notice)]

    @property
    def waveform(self) -> NDArray[np.float32]:
        return np.concatenate([block.waveform for block in self.blocks], axis=1)

    def check_clock(self) -> None:
        for times in ([frame.time_s for frame in self.frames], [block.time_s for block in self.blocks]):
            assert all(math.isfinite(time_s) for time_s in times)
            assert min(times, default=0) >= 0
            assert times == sorted(times)


def wav(path: Path, waveform: NDArray, rate_hz: int, codec: str, sample_format: str) -> Path:
    return make_clip(
        path, video=False, waveform=waveform, rate_hz=rate_hz, audio_codec=codec, audio_format=sample_format
    )
