"""Recordings as sources, made on the spot; see also `media_factory`."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.media_factory import colour_of_second, make_clip, tone
from support.runtime.played import Played, wav

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Gap, Samples, Sense


def test_frames_and_sound_on_one_clock(tmp_path: Path) -> None:
    played = Played(make_clip(tmp_path / "clip.mp4"))
    assert played.source.senses == {"vision", "audio"}
    assert played.source.live is False
    assert played.source.duration_s == pytest.approx(3.0, abs=0.1)
    assert [frame.time_s for frame in played.frames] == pytest.approx([index / 25 for index in range(75)])
    assert played.blocks[0].time_s == 0
    assert played.gaps == []
    for frame in played.frames[12::25]:
        image = frame.image()
        assert (image.shape, image.dtype) == ((120, 160, 3), np.uint8)
        assert image[60, 80] == pytest.approx(colour_of_second(frame.time_s), abs=8)
    played.check_clock()


@pytest.mark.parametrize(
    ("name", "options", "senses", "reported"),
    [
        ("silent.mp4", {"audio": False}, {"vision"}, "has no audio"),
        ("sound.m4a", {"video": False}, {"audio"}, "no video"),
    ],
)
def test_one_sense_missing(tmp_path: Path, name: str, options: dict, senses: set[Sense], reported: str) -> None:
    played = Played(make_clip(tmp_path / name, **options))
    assert played.source.senses == senses
    assert reported in played.reported[0]
    assert bool(played.frames) == ("vision" in senses)
    assert bool(played.blocks) == ("audio" in senses)


def test_a_sense_that_is_left_out_is_not_reported(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=1)
    played = Played(clip, audio=False)
    assert (played.source.senses, played.blocks, played.reported) == ({"vision"}, [], [])
    with pytest.raises(UsageError, match="neither"):
        MediaSource(clip, audio=False, video=False)
    with pytest.raises(MediaError, match="only audio"):
        MediaSource(make_clip(tmp_path / "sound.m4a", video=False), audio=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no media at all " * 99), "cannot be opened"),
        (lambda path: path.write_bytes(bytes(5000)), "cannot be opened"),
        (
            lambda path: path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n"),
            "neither video nor audio|cannot be",
        ),
        (lambda path: __import__("os").mkfifo(path), "not a regular file"),
    ],
    ids=["missing", "folder", "empty", "text", "zeros", "subtitles", "fifo"],
)
def test_files_that_are_not_media_are_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(MediaError, match=message) as error:
        MediaSource(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "wav"])
def test_a_truncated_file_is_played_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    if suffix == "wav":
        wav(path, (tone(6, 16_000) * 32767).astype(np.int16), 16_000, "pcm_s16le", "s16")
    else:
        make_clip(path, duration_s=6, options={"movflags": "faststart"} if suffix == "mp4" else None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3 + 1])
    played = Played(path)
    assert 3 < played.waveform.shape[1] / 16_000 < 5
    assert any("truncated" in text for text in played.reported)
    assert "truncated" in {gap.cause for gap in played.gaps} or suffix == "wav"
    assert sum(gap.duration_s for gap in played.gaps) < 5
    played.check_clock()


def test_a_truncated_file_without_its_index_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(MediaError, match="its end is missing"):
        MediaSource(path)


def test_damaged_packets_are_counted_and_skipped(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", duration_s=6)
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, len(content) // 5, np.uint8).tobytes()
    start = len(content) * 2 // 5
    content[start : start + len(noise)] = noise
    path.write_bytes(content)
    played = Played(path)
    played.check_clock()
    assert played.gaps
    assert played.frames[-1].time_s > 5
    assert played.blocks[-1].time_s > 5
    assert 0 < sum(gap.duration_s for gap in played.gaps if gap.sense == "vision") < 4


def test_variable_frame_rate_shows_each_frame_as_long_as_it_lasts(tmp_path: Path) -> None:
    times_s = [0, 0.04, 0.1, 0.5, 2.0, 2.04, 2.9]
    played = Played(
        make_clip(
            tmp_path / "clip.mp4", times_s=times_s, picture=lambda t: np.full((64, 64, 3), round(80 * t), np.uint8)
        )
    )
    assert set(times_s) <= {round(frame.time_s, 3) for frame in played.frames}
    # the frame of 0.5 s is still there at 1.0 and 1.5 s
    held = [frame for frame in played.frames if 0.9 < frame.time_s < 1.9]
    assert [frame.time_s for frame in held] == pytest.approx([1.0, 1.5])
    assert all(abs(int(frame.image().mean()) - 40) < 4 for frame in held)
    assert [gap for gap in played.gaps if gap.cause == "timestamp jump"] == []
    played.check_clock()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_undone(tmp_path: Path, rotation: int) -> None:
    upright = np.zeros((96, 160, 3), np.uint8)
    upright[:48, :80], upright[:48, 80:], upright[48:, :80] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = make_clip(tmp_path / "clip.mp4", rotation=rotation, picture=lambda _: upright, audio=False, duration_s=0.2)
    # set_display_rotation counts counterclockwise, as np.rot90 does
    expected = np.rot90(upright, rotation // 90)
    image = Played(path).frames[0].image()
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected)[8:40, 8:40].max() < 12
    assert np.abs(image.astype(int) - expected)[-40:-8, -40:-8].max() < 12


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("ffv1", "yuv420p10le", "mkv"),
        ("mjpeg", "yuvj420p", "avi"),
        ("ffv1", "bgra", "mkv"),
        ("png", "rgba", "mov"),
        ("ffv1", "gray", "mkv"),
    ],
)
def test_colours_are_right_in_every_pixel_format(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    path = make_clip(tmp_path / f"clip.{suffix}", codec=codec, pixel_format=pixel_format, audio=False, duration_s=0.2)
    colour = np.array(colour_of_second(0.0))
    expected = np.full(3, colour @ (0.299, 0.587, 0.114)) if pixel_format == "gray" else colour
    assert Played(path).frames[0].image()[60, 80] == pytest.approx(expected, abs=5)


def test_4k_frames(tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / "clip.mp4", duration_s=0.2, audio=False, picture=lambda _: np.full((2160, 3840, 3), 90, np.uint8)
    )
    assert Played(path).frames[0].image().shape == (2160, 3840, 3)


@pytest.mark.parametrize("rate_hz", [8_000, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("codec", "sample_format", "scale", "tolerance"), [
    ("pcm_u8", "u8", 127, 2e-2), ("pcm_s16le", "s16", 32767, 1e-4), ("pcm_s24le", "s32", 2**31 - 1, 1e-6),
    ("pcm_f32le", "flt", 1, 0), ("pcm_f64le", "dbl", 1, 1e-7),
])  # fmt: skip
def test_sound_of_every_kind(
    tmp_path: Path, rate_hz: int, channels: int, codec: str, sample_format: str, scale: int, tolerance: float
) -> None:
    sound = tone(0.5, rate_hz, channels=channels) * np.linspace(0.2, 1, channels, dtype=np.float32)[:, None]
    dtype = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}[sample_format]
    written = sound.astype(np.float64) * scale + (128 if sample_format == "u8" else 0)
    played = Played(wav(tmp_path / "sound.wav", written.astype(dtype), rate_hz, codec, sample_format))
    assert {block.rate_hz for block in played.blocks} == {rate_hz}
    assert played.waveform.dtype == np.float32
    assert played.waveform.shape == sound.shape
    assert np.abs(played.waveform - sound).max() <= tolerance


def test_nan_samples_are_passed_on(tmp_path: Path) -> None:
    sound = tone(1, 16_000)
    sound[0, 100:200] = np.nan
    played = Played(wav(tmp_path / "sound.wav", sound, 16_000, "pcm_f32le", "flt"))
    np.testing.assert_array_equal(played.waveform, sound)


def test_realtime_plays_at_its_own_speed_and_close_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MediaSource(make_clip(tmp_path / "clip.mp4"), realtime=True)
    assert source.live
    clock_s = [100.0]
    closing = False

    class Stopping(threading.Event):
        """Time passes only while the source waits."""

        def wait(self, timeout: float | None = None) -> bool:
            if closing:
                source.close()
            elif timeout is not None:
                clock_s[0] += timeout
            return self.is_set()

    source._stopping = Stopping()
    monkeypatch.setattr("ovavel.runtime.sources.media.source.time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    late_s, newest_s = [], 0.0
    for chunk in source.chunks():
        assert not closing, "it ends though it waits"
        assert not isinstance(chunk, Gap)
        duration_s = chunk.waveform.shape[1] / chunk.rate_hz if isinstance(chunk, Samples) else 0.0
        late_s.append(chunk.captured_s - 100 - chunk.time_s - duration_s)
        newest_s = chunk.time_s
        closing = newest_s > 1
    assert 1 < newest_s < 1.2
    assert min(late_s) >= -1e-9
    assert max(late_s) < 0.1  # what is stored behind something later
    source.close()


def test_close_before_chunks_and_a_second_call(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=1)
    source = MediaSource(clip)
    source.close()
    source.close()
    assert list(source.chunks()) == []
    source = MediaSource(clip)
    assert list(source.chunks())
    assert list(source.chunks()) == []
