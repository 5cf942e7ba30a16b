"""Every second of a recording is in its place, however its file holds time."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.demo_copies import EVENTS, copy_clip, encode_clip
from support.media_factory import make_clip, tone
from support.runtime.everyday import Answer, Watched, watch

from ovavel.runtime.sources.media import decode, ordered
from ovavel.runtime.types import Window


def not_from_5_to_10_9(time_s: float) -> bool:
    return not 5 <= time_s <= 10.9


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_picture_that_is_held(tmp_path: Path, localize: Callable[[Path], Answer], suffix: str, b_frames: int) -> None:
    answer = localize(encode_clip(tmp_path / f"held.{suffix}", keep=not_from_5_to_10_9, b_frames=b_frames))
    assert answer.events == EVENTS
    assert len(answer.document.segments) == 40
    assert answer.document.duration_s == pytest.approx(40, abs=0.05)
    assert answer.document.gaps == ()
    assert (answer.code, answer.err) == (0, "")


def test_b_frames_in_avi_are_shown_in_their_order(tmp_path: Path) -> None:
    shown = watch(encode_clip(tmp_path / "clip.avi", b_frames=3), audio=False)
    same = watch(encode_clip(tmp_path / "clip.mp4", b_frames=3), audio=False)
    assert shown.assembler.counts.frames_in == 480
    for one, other in zip(shown.windows, same.windows, strict=True):
        assert one.frame is not None and other.frame is not None
        assert np.abs(one.frame.astype(int) - other.frame).mean() < 2


def with_threads(monkeypatch: pytest.MonkeyPatch, path: Path, threads: int) -> Watched:
    monkeypatch.setattr(decode, "DECODER_THREADS", threads)
    return watch(path)


@pytest.mark.parametrize(("suffix", "every_s"), [("mp4", 5), ("mkv", 5), ("mp4", 1), ("mkv", 1)])
def test_few_frames_a_second_and_any_number_of_decoder_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, every_s: int
) -> None:
    path = encode_clip(
        tmp_path / f"slow.{suffix}",
        keep=lambda time_s: round(time_s * 12) % (12 * every_s) == 0,
        fps=Fraction(1, every_s),
    )
    runs = [with_threads(monkeypatch, path, threads) for threads in (1, 4, 16)]
    for run in runs:
        assert len(run.windows) == 40
        assert run.gaps == []
    for alone, few, many in zip(*(run.windows for run in runs), strict=True):
        np.testing.assert_array_equal(alone.frame, few.frame)
        np.testing.assert_array_equal(alone.frame, many.frame)
        np.testing.assert_array_equal(alone.waveform, many.waveform)


def test_one_frame_a_second_is_enough(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    path = encode_clip(tmp_path / "slow.mp4", keep=lambda time_s: round(time_s * 12) % 12 == 6, fps=Fraction(1))
    assert localize(path).events == EVENTS


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "pcm_s16le"])
def test_an_avi_file_takes_its_times_from_its_index(tmp_path: Path, codec: str) -> None:
    """AVI holds no timestamps: FFmpeg counts packets, those of AAC wrongly, and not those that it cannot find."""
    sound = np.concatenate([tone(1, 16_000, frequency_hz=300 + 100 * second) for second in range(20)], axis=1)
    if codec == "pcm_s16le":
        waveform, sample = (sound * 32_767).astype(np.int16), "s16"
    else:
        waveform, sample = sound, "fltp"
    path = make_clip(tmp_path / "clip.avi", duration_s=20, waveform=waveform, audio_codec=codec, audio_format=sample)

    def heard(windows: list[Window]) -> list[int | None]:
        waveforms = [window.waveform for window in windows]
        return [None if w is None else round(float(np.abs(np.fft.rfft(w[0])).argmax()), -2) for w in waveforms]

    whole = watch(path)
    assert whole.gaps == []
    assert heard(whole.windows) == [300 + 100 * second for second in range(20)]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pos is not None and packet.pts is not None]
    start, end = (next(p.pos for p in packets if p.pts * p.time_base >= at_s) for at_s in (10, 12))
    content = bytearray(path.read_bytes())
    content[start:end] = np.random.default_rng(0).integers(0, 256, end - start, np.uint8).tobytes()
    path.write_bytes(content)
    damaged = watch(path)
    assert len(damaged.windows) == 20
    for sense in ("vision", "audio"):
        lost = [gap for gap in damaged.gaps if gap.sense == sense]
        assert 1 < sum(gap.duration_s for gap in lost) < 4
        assert all(gap.start_s > 8 and gap.start_s + gap.duration_s < 14 for gap in lost)
    assert heard(damaged.windows)[14:] == heard(whole.windows)[14:]
    for one, other in zip(damaged.windows[14:], whole.windows[14:], strict=True):
        assert one.frame is not None
        assert other.frame is not None
        assert np.abs(one.frame.astype(int) - other.frame).mean() < 4


@pytest.mark.parametrize(("suffix", "offset_s"), [("mkv", 600), ("ts", 600), ("mp4", 600), ("mkv", -1.5), ("ts", -1.5)])
def test_media_that_does_not_start_at_0(
    tmp_path: Path, localize: Callable[[Path], Answer], suffix: str, offset_s: float
) -> None:
    answer = localize(copy_clip(tmp_path / f"later.{suffix}", offset_s=offset_s))
    assert answer.events == EVENTS
    assert len(answer.document.segments) == 40
    assert answer.document.duration_s == pytest.approx(40, abs=0.1)
    assert answer.document.gaps == ()
    assert answer.err == ""
    assert ": 40.0 s, 6 events" in answer.out


@pytest.mark.parametrize("audio_codec", ["aac", "libopus"])
@pytest.mark.parametrize(("video_s", "sound_s"), [(3, 3.072), (3.072, 3.072), (3.2, 3.072), (3.1, 2.048), (0, 3.072)])
def test_an_encoders_run_in_does_not_lengthen_matroska(
    tmp_path: Path, video_s: float, sound_s: float, audio_codec: str
) -> None:
    path = make_clip(
        tmp_path / "clip.mkv",
        video=video_s > 0,
        times_s=[index / 25 for index in range(round(video_s * 25))],
        waveform=tone(sound_s, 8_000),
        rate_hz=8_000,
        audio_codec=audio_codec,
        audio_format="flt" if audio_codec == "libopus" else "fltp",
    )
    run = watch(path)
    assert run.lost_s("audio") == pytest.approx(max(0, video_s - sound_s), abs=0.15)
    assert run.source.duration_s == pytest.approx(max(video_s, sound_s), abs=0.045)
    assert run.reported == ([] if video_s else [f"{path} has no video"])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_picture_that_ends_long_before_the_sound_starts(tmp_path: Path, suffix: str) -> None:
    run = watch(copy_clip(tmp_path / f"late.{suffix}", sound_offset_s=15, video_until_s=5))
    assert len(run.windows) == 55
    assert [window.frame is not None for window in run.windows] == [True] * 5 + [False] * 50
    sounds = [window.waveform is not None for window in run.windows]
    assert (sounds[1:14], sounds[15:]) == ([False] * 13, [True] * 40)  # an encoder's run-in may be before second 15
    assert {(gap.sense, gap.cause) for gap in run.gaps} == {("vision", "no video"), ("audio", "no audio")}
    assert run.lost_s("vision") == pytest.approx(50, abs=0.3)
    assert run.lost_s("audio") == pytest.approx(15, abs=0.3)


def test_a_loss_too_short_to_print_is_not_printed(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", duration_s=2, codec="mpeg2video", audio_codec="aac") for n in range(2)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    answer = localize(path)
    assert any(gap.cause == "timestamp jump" for gap in answer.document.gaps)
    assert "jump at 2.0" in answer.out
    assert " 0.0 s" not in answer.out


@pytest.mark.parametrize("waiting_bytes", [0, 100_000, 2**25])
@pytest.mark.parametrize("first", ["video", "audio"])
def test_matroska_with_one_kind_before_the_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    localize: Callable[[Path], Answer],
    waiting_bytes: int,
    first: str,
) -> None:
    monkeypatch.setattr(ordered, "MOST_WAITING_BYTES", waiting_bytes)
    path = copy_clip(
        tmp_path / "apart.mkv",
        offset_s=0.064,  # nothing before 0, or the writer moves one stream alone
        order=lambda time_s, kind: (kind != first, time_s),
        options={"max_interleave_delta": "1"},
    )
    answer = localize(path)
    assert answer.events == EVENTS
    assert len(answer.document.segments) == 40
    assert answer.document.gaps == ()
