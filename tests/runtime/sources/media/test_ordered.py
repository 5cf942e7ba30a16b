"""Real files with everything drawn at random: whatever order they are stored in, every second is in its place."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.sources.media import decode, ordered
from ovavel.runtime.sources.media.source import HOLD_S, MediaSource
from ovavel.runtime.types import RATE_HZ, Window

LEVELS = 26
"""Shades of grey that tell one picture from its neighbours."""


class Drawn(NamedTuple):
    """What a file is made of; times in milliseconds."""

    suffix: str
    steps: list[int]
    """From each picture to the next."""
    start: int
    """Of the first picture after the first sound."""
    offset: int
    """Of the file's clock."""
    rate_hz: int
    channels: int
    block: int
    """Length of a block of sound."""
    holes: list[tuple[int, int]]
    """Where sound is missing: start and length."""
    tail: int
    """How long the sound goes on after the last picture began."""
    lag: int
    """How much later sound is stored than pictures of the same time."""
    b_frames: int

    @property
    def pictures(self) -> list[int]:
        """When each picture begins."""
        return list(accumulate(self.steps, initial=self.start))

    @property
    def sounds(self) -> list[int]:
        """When each block of sound begins."""
        end = self.pictures[-1] + self.tail
        starts = range(0, end - self.block + 1, self.block)
        if self.suffix == "mov":  # it counts PCM on from the start
            return list(starts)
        return [at for at in starts if not any(start <= at < start + length for start, length in self.holes)]


drawn = st.builds(
    Drawn,
    suffix=st.sampled_from(["mkv", "mov"]),
    steps=st.lists(st.sampled_from([40, 40, 40, 80, 100, 500, 1_000, 2_600, 7_000]), min_size=3, max_size=30),
    start=st.sampled_from([0, 40, 700, 3_000]),
    offset=st.sampled_from([0, 1_400, 600_000]),
    rate_hz=st.sampled_from([8_000, 16_000, 48_000]),
    channels=st.integers(1, 2),
    block=st.sampled_from([20, 64, 200]),
    holes=st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([300, 1_500, 4_000])), max_size=2),
    tail=st.integers(2_000, 14_000),
    lag=st.sampled_from([-100_000, -6_000, 0, 0, 3_000, 100_000]),
    b_frames=st.integers(0, 3),
)


def sound_at(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sound so slow that its value gives the time away."""
    return 0.9 * np.sin(2 * np.pi * 0.37 * times_s)


def write(path: Path, made: Drawn) -> None:
    options = {"max_interleave_delta": "1"} if path.suffix == ".mkv" else {}
    with av.open(str(path), "w", options=options) as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": str(made.b_frames)})
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = out.add_stream("pcm_s16le", rate=made.rate_hz, layout={1: "mono", 2: "stereo"}[made.channels])
        packets = []
        for index, at in enumerate(made.pictures):
            grey = np.full((32, 32, 3), 20 + 8 * (index % LEVELS), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = at + made.offset, Fraction(1, 1000)
            packets += video.encode(frame)
        packets += video.encode(None)
        for at in made.sounds:
            n = made.block * made.rate_hz // 1000
            wave = np.round(sound_at(at / 1000 + np.arange(n) / made.rate_hz) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(
                np.repeat(wave, made.channels)[None], format="s16", layout=audio.layout.name
            )
            frame.sample_rate, frame.time_base = made.rate_hz, Fraction(1, made.rate_hz)
            frame.pts = (at + made.offset) * made.rate_hz // 1000
            packets += audio.encode(frame)
        lags = {video.index: 0.0, audio.index: made.lag / 1000}
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base) + lags[p.stream.index]):
            out.mux(packet)


def windows_of(path: Path) -> tuple[list[Window], MediaSource, WindowAssembler]:
    source = MediaSource(path)
    assembler = WindowAssembler(source.senses, live=False)
    windows = [window for chunk in source.chunks() for window in assembler.push(chunk)]
    return [*windows, *assembler.flush()], source, assembler


def heard(made: Drawn, length: int) -> NDArray[np.bool_]:
    """For each millisecond, whether there is sound."""
    there = np.zeros(length, np.bool_)
    for at in made.sounds:
        there[at : at + made.block] = True
    return there


def sound_ends_last(made: Drawn) -> bool:
    """Whether the length of the file is known from its sound: how long a last picture stays is the format's matter."""
    return bool(made.sounds) and made.sounds[-1] + made.block > made.pictures[-1] + max(made.steps)


def both_stop(made: Drawn) -> bool:
    """Whether sound stops where a picture stays: then the picture is not held, which is another test's matter.

    A pause of exactly a second is on the edge: how the file rounds its times decides.
    """
    silent = [(before + made.block, after) for before, after in pairwise(made.sounds)]
    return any(
        after - before >= 1_000 and end - start >= 1_000 and abs(before - start) <= 1_100 and abs(after - end) <= 1_100
        for before, after in pairwise(made.pictures)
        for start, end in silent
    )


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    made=drawn.filter(lambda made: sound_ends_last(made) and not both_stop(made)),
    threads=st.sampled_from([1, 3, 16]),
    waiting_bytes=st.sampled_from([0, 2**25]),
)
@example(
    made=Drawn("mkv", [1_000] * 4, 3_000, 0, 8_000, 2, block=200, holes=[(0, 300)], tail=4_000, lag=0, b_frames=3),
    threads=3,
    waiting_bytes=2**25,
)
@example(
    made=Drawn("mkv", [7_000, 7_000, 1_000, 2_600, 500], 3_000, 0, 8_000, 2, 64, [], tail=7_044, lag=3_000, b_frames=3),
    threads=16,
    waiting_bytes=0,
)
def test_every_second_is_in_its_place(made: Drawn, threads: int, waiting_bytes: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "DECODER_THREADS", threads)
        patch.setattr(ordered, "MOST_WAITING_BYTES", waiting_bytes)
        path = Path(folder) / f"clip.{made.suffix}"
        write(path, made)
        windows, source, assembler = windows_of(path)
    first = min(made.pictures[0], made.sounds[0])
    length = made.sounds[-1] + made.block - first
    assert source.duration_s == pytest.approx(length / 1000, abs=0.002)
    assert len(windows) == length // 1000 + (length % 1000 >= 500)
    counts = assembler.counts
    assert counts.frames_in == counts.frames_used + sum(counts.frames_dropped.values())
    assert counts.samples_in == counts.samples_used + sum(counts.samples_dropped.values())
    assert not {"late video", "late sound"} & {gap.cause for window in windows for gap in window.gaps}

    there = np.pad(heard(made, first + length)[first:], (0, 2000))  # and nothing after the end
    shown = [
        (at + stays - first, index)
        for index, (at, until) in enumerate(pairwise([*made.pictures, made.pictures[-1] + 40]))
        for stays in range(0, until - at, round(HOLD_S * 1000))
    ]
    for window in windows:
        check_picture(window, shown)
        check_sound(window, there, first)


def check_picture(window: Window, shown: list[tuple[int, int]]) -> None:
    middle = window.index * 1000 + 500
    inside = [(abs(at - middle), at, index) for at, index in shown if window.index * 1000 <= at < middle + 500]
    gaps = [gap for gap in window.gaps if gap.sense == "vision"]
    if window.frame is None:
        assert gaps, "a second without a picture says why"
        assert not inside
    elif inside:
        nearest = min(inside)
        # files round times to the millisecond
        likely = {index for away, _, index in inside if away <= nearest[0] + 2}
        grey = float(window.frame.mean())
        assert min(abs(grey - (20 + 8 * (index % LEVELS))) for index in likely) < 4


def check_sound(window: Window, there: NDArray[np.bool_], first: int) -> None:
    second = slice(window.index * 1000, (window.index + 1) * 1000)
    inside = there[second]
    lost_s = sum(gap.duration_s for gap in window.gaps if gap.sense == "audio")
    assert lost_s == pytest.approx(1 - inside.mean(), abs=0.02)
    if window.waveform is None:
        assert inside.mean() < 0.02
        return
    # well inside of what is there: a resampler rings at edges, and the start of the file is one
    sure = np.convolve(np.pad(~there, 50, constant_values=True), np.ones(101), "valid")[second] == 0
    times_s = first / 1000 + window.start_s + np.arange(RATE_HZ) / RATE_HZ
    error = np.abs(window.waveform[0] - sound_at(times_s))[np.repeat(sure, RATE_HZ // 1000)]
    assert error.max(initial=0.0) < 0.02
