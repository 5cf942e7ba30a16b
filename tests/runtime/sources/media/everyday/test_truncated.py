"""All that is missing of a file that breaks off is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.demo_copies import EVENTS, copy_clip
from support.media_factory import make_clip, tone
from support.runtime.everyday import Answer, watch, wave


@pytest.mark.parametrize("part", [0.25, 0.5])
def test_all_that_is_missing_of_a_truncated_file_is_counted(
    tmp_path: Path, localize: Callable[[Path], Answer], part: float
) -> None:
    path = copy_clip(tmp_path / "cut.mp4", options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * part)])
    answer = localize(path)
    assert answer.code == 0
    assert "is truncated: it ends at" in answer.out
    assert len(answer.document.segments) == 40
    assert answer.document.duration_s == 40
    for sense in ("vision", "audio"):
        seen = [segment for segment in answer.document.segments if sense not in segment.missing]
        assert answer.lost_s(sense) == pytest.approx(40 - len(seen), abs=1)
    assert answer.lost_s("vision", "truncated") == pytest.approx(40 * (1 - part), abs=6)
    ends_s = float(answer.out.split("ends at ")[1].split()[0])
    assert answer.events == [event for event in EVENTS if event[1] < ends_s] + [
        (start_s, float(int(ends_s)), label)
        for start_s, end_s, label in EVENTS
        if start_s < ends_s - 1 and end_s > ends_s
    ]


def test_a_wave_file_that_was_cut_is_truncated(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    path = tmp_path / "cut.wav"
    samples = (tone(10, 16_000)[0] * 30_000).astype("<i2").tobytes()
    path.write_bytes(wave(samples[: len(samples) // 2], claimed=len(samples)))
    answer = localize(path)
    assert answer.document.duration_s == pytest.approx(10)
    assert len(answer.document.segments) == 10
    assert answer.lost_s("audio", "truncated") == pytest.approx(5)
    assert "is truncated: it ends at 5.000 s of 10.000 s" in answer.out


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format"),
    [("wav", "pcm_s32le", "s32"), ("wav", "pcm_f32le", "flt"), ("mp3", "libmp3lame", "s16p")],
)
def test_all_that_is_missing_of_truncated_sound_is_counted(
    tmp_path: Path, suffix: str, codec: str, sample_format: str
) -> None:
    sound = tone(10, 48_000, channels=2)
    path = make_clip(
        tmp_path / f"sound.{suffix}",
        video=False,
        waveform=(sound * 32767).astype(np.int16 if "16" in sample_format else np.int32)
        if sample_format[0] == "s"
        else sound,
        rate_hz=48_000,
        audio_codec=codec,
        audio_format=sample_format,
    )
    assert watch(path).gaps == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    cut = watch(path)
    assert cut.source.duration_s == pytest.approx(10, abs=0.05)
    assert len(cut.windows) == 10
    assert cut.lost_s("audio", "truncated") == pytest.approx(4, abs=0.1)
    assert any("is truncated" in reported for reported in cut.reported)


@pytest.mark.parametrize(("audio_codec", "audio_format"), [("aac", "fltp"), ("pcm_s16le", "s16")])
def test_all_that_is_missing_of_a_truncated_avi_file_is_counted(
    tmp_path: Path, audio_codec: str, audio_format: str
) -> None:
    sound = tone(10, 16_000)
    waveform = (sound * 32767).astype(np.int16) if audio_format == "s16" else sound
    path = make_clip(
        tmp_path / "clip.avi", duration_s=10, waveform=waveform, audio_codec=audio_codec, audio_format=audio_format
    )
    assert not any("truncated" in reported for reported in watch(path).reported)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    cut = watch(path)
    assert cut.source.duration_s == pytest.approx(10, abs=0.2)
    assert len(cut.windows) == 10
    assert 1 < cut.lost_s("vision", "truncated") == pytest.approx(cut.lost_s("audio", "truncated"), abs=0.5)
    assert any("is truncated" in reported for reported in cut.reported)


@pytest.mark.parametrize(("suffix", "audio_codec", "audio_format"), [("ogg", "flac", "s16"), ("ts", "aac", "fltp")])
def test_a_file_without_a_length_that_breaks_off_is_truncated(
    tmp_path: Path, suffix: str, audio_codec: str, audio_format: str
) -> None:
    sound = tone(6, 48_000)
    path = make_clip(
        tmp_path / f"sound.{suffix}",
        duration_s=6,
        video=suffix == "ts",
        waveform=(sound * 32767).astype(np.int16) if audio_format == "s16" else sound,
        rate_hz=48_000,
        audio_codec=audio_codec,
        audio_format=audio_format,
    )
    assert not any("truncated" in reported for reported in watch(path).reported)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10 // 188 * 188 + 100])
    cut = watch(path)
    assert cut.source.duration_s == pytest.approx(3.6, abs=1)
    assert any(f"is truncated: it ends at {cut.source.duration_s:.3f} s" in reported for reported in cut.reported)


def test_a_fragmented_file_that_cannot_be_read_to_its_end_is_truncated(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", duration_s=10, options={"movflags": "frag_keyframe+empty_moov"})
    whole = watch(path)
    assert whole.source.duration_s == pytest.approx(10, abs=0.2)
    assert whole.reported == []
    content = bytearray(path.read_bytes())
    at = content.index(b"moof", len(content) // 2)
    content[at : at + 5_000] = np.random.default_rng(0).integers(0, 256, 5_000, np.uint8).tobytes()
    path.write_bytes(content)
    damaged = watch(path)
    assert 2 < damaged.source.duration_s < 8
    assert damaged.reported == [f"{path} is truncated: it ends at {damaged.source.duration_s:.3f} s"]
