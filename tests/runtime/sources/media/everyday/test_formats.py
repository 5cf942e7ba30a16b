"""Containers, codecs and channels as people have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.demo_copies import BUNDLE
from support.media_factory import make_clip, tone
from support.runtime.everyday import Answer, watch, wave

from ovavel.runtime.cli import main
from ovavel.runtime.sources.media import decode
from ovavel.runtime.sources.media.arrays import to_waveform
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Samples


@pytest.mark.parametrize(("first", "second"), [((48_000, 2), (16_000, 1)), ((16_000, 1), (48_000, 2))])
@pytest.mark.parametrize("video", [False, True])
def test_sound_whose_rate_and_channels_change_is_continuous(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int], video: bool
) -> None:
    path = tmp_path / "joined.ts"
    for rate_hz, channels in (first, second):
        part = make_clip(
            tmp_path / f"{rate_hz}.ts",
            duration_s=5,
            video=video,
            codec="mpeg2video",
            waveform=tone(5, rate_hz, channels=channels),
            rate_hz=rate_hz,
        )
        with path.open("ab") as joined:
            joined.write(part.read_bytes())
    run = watch(path)
    assert len(run.windows) == 10
    assert run.lost_s("audio") < 0.2
    for window in run.windows:
        assert window.waveform is not None
        assert np.sqrt(np.mean(np.square(window.waveform[0]))) == pytest.approx(0.5 / np.sqrt(2), rel=0.15)


LENGTHS = [
    ("mp3", "libmp3lame", "s16p"),
    ("opus", "libopus", "flt"),
    ("ogg", "flac", "s16"),
    ("ts", "aac", "fltp"),
]


@pytest.mark.parametrize(("suffix", "codec", "sample_format"), LENGTHS)
@pytest.mark.parametrize(("duration_s", "segments"), [(10.4, 10), (10.6, 11)])
def test_length_of_files_whose_header_does_not_have_it(
    tmp_path: Path,
    localize: Callable[[Path], Answer],
    suffix: str,
    codec: str,
    sample_format: str,
    duration_s: float,
    segments: int,
) -> None:
    sound = tone(duration_s, 48_000)
    path = make_clip(
        tmp_path / f"sound.{suffix}",
        video=False,
        waveform=(sound * 32767).astype(np.int16) if sample_format.startswith("s16") else sound,
        rate_hz=48_000,
        audio_codec=codec,
        audio_format=sample_format,
    )
    answer = localize(path)
    assert answer.document.duration_s == pytest.approx(duration_s, abs=0.06)
    assert f": {duration_s:.1f} s" in answer.out
    assert len(answer.document.segments) == segments
    assert "truncated" not in answer.out


@pytest.mark.parametrize(
    ("codec", "sample_format", "layout"), [("libopus", "flt", "7.1"), ("pcm_s16le", "s16", "hexadecagonal")]
)
def test_sound_of_many_channels(tmp_path: Path, codec: str, sample_format: str, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    wave = np.linspace(0.1, 1, channels)[:, None] * tone(2, 48_000)
    path = make_clip(
        tmp_path / "surround.mkv",
        duration_s=2,
        waveform=(wave * 32_767).astype(np.int16) if sample_format == "s16" else wave.astype(np.float32),
        rate_hz=48_000,
        audio_codec=codec,
        audio_format=sample_format,
        layout=layout,
    )
    chunks = [chunk for chunk in MediaSource(path, video=False).chunks() if isinstance(chunk, Samples)]
    heard = np.concatenate([chunk.waveform for chunk in chunks], axis=1)[:, 24_000:72_000]
    loud = np.sqrt(np.mean(np.square(heard), axis=1)) * np.sqrt(2) / 0.5
    assert loud.shape == (channels,)
    if codec != "libopus":  # it filters what it takes for low frequencies
        assert loud == pytest.approx(np.linspace(0.1, 1, channels), rel=0.01)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1", "hexadecagonal", "22.2"])
@pytest.mark.parametrize(("sample_format", "dtype"), list(decode.SAMPLE_TYPES.items()))
def test_planes_of_any_number_of_channels(layout: str, sample_format: str, dtype: type) -> None:
    from av.audio.plane import AudioPlane

    frame = av.AudioFrame(sample_format, layout, 480)
    channels = frame.layout.nb_channels
    # silence, and half of full scale
    zero, half = {"u": (128, 64), "i": (0, 2 ** (8 * np.dtype(dtype).itemsize - 2)), "f": (0, 0.5)}[
        np.dtype(dtype).kind
    ]
    for index in range(channels):
        plane = AudioPlane(frame, index)
        samples = np.zeros(plane.buffer_size // np.dtype(dtype).itemsize, dtype)
        samples[:480] = zero + half * index / channels
        plane.update(samples.tobytes())
    waveform = to_waveform(frame)
    assert waveform.shape == (channels, 480)
    expected = np.arange(channels) / channels / 2
    np.testing.assert_allclose(waveform, np.repeat(expected[:, None], 480, axis=1), atol=1 / 64)


def test_video_that_ffmpeg_has_no_decoder_for(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    path = make_clip(tmp_path / "clip.mp4", codec="libx264")
    content = path.read_bytes()
    at = content.index(b"avc1", content.index(b"stsd"))
    path.write_bytes(content[:at] + b"zzz1" + content[at + 4 :])
    answer = localize(path)
    assert answer.code == 1
    assert "has video that cannot be used: FFmpeg has no decoder for it" in answer.out
    assert "has no video" not in answer.out


def test_a_track_in_the_place_of_one_that_ffmpeg_has_no_decoder_for(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    sound: dict[str, Any] = {"waveform": (tone(3, 16_000) * 32767).astype(np.int16), "audio_format": "s16"}
    clips = [
        av.open(str(make_clip(tmp_path / f"{n}.mov", video=n == 0, audio_codec="pcm_s16le", **sound))) for n in range(2)
    ]
    with av.open(str(path), "w") as out:
        pairs = [(clip, stream) for clip in clips for stream in clip.streams]
        copies = {id(stream): out.add_stream_from_template(stream) for _, stream in pairs}  # type: ignore[type-var]
        for clip in clips:
            for packet in clip.demux():
                if packet.dts is not None:
                    packet.stream = copies[id(packet.stream)]
                    out.mux(packet)
            clip.close()
    content = path.read_bytes()
    at = content.index(b"sowt", content.index(b"stsd"))
    path.write_bytes(content[:at] + b"zzz1" + content[at + 4 :])
    run = watch(path)
    assert run.reported == [f"{path} has audio that FFmpeg has no decoder for; another track is used"]
    assert all(window.frame is not None and window.waveform is not None for window in run.windows)


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_a_wave_file_from_a_pipe_has_no_length_and_is_whole(
    tmp_path: Path, localize: Callable[[Path], Answer], claimed: int
) -> None:
    path = tmp_path / "piped.wav"
    samples = (tone(10, 16_000)[0] * 30_000).astype("<i2")
    path.write_bytes(wave(samples.tobytes(), claimed=claimed))
    answer = localize(path)
    assert answer.document.duration_s == pytest.approx(10)
    assert len(answer.document.segments) == 10
    assert answer.document.gaps == ()
    assert "truncated" not in answer.out


def test_a_stream_that_appears_late_is_ignored(tmp_path: Path) -> None:
    """Captions that a server put into a Flash video while it was sent."""
    path = make_clip(tmp_path / "clip.flv", codec="libx264", rate_hz=44_100)

    def text(value: bytes) -> bytes:
        return len(value).to_bytes(2) + value

    captions = (
        (b"\2" + text(b"onTextData") + b"\x08\0\0\0\2")
        + (text(b"type") + b"\2" + text(b"Text") + text(b"text") + b"\2" + text(b"hello"))
        + b"\0\0\x09"
    )
    tag = bytes([18]) + len(captions).to_bytes(3) + bytes(7) + captions
    path.write_bytes(path.read_bytes() + tag + len(tag).to_bytes(4))
    run = watch(path)
    assert len(run.windows) == 3
    assert all(window.frame is not None and window.waveform is not None for window in run.windows)
    assert run.reported == []


def test_a_header_without_samples_is_reported_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(wave(b"", claimed=0))
    assert main(["localize", str(path), "--bundle", str(BUNDLE)]) == 1
    assert "it contains only a header" in capsys.readouterr().err
