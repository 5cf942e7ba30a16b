"""Recordings as people have them, through `ovavel localize`: every second in its place, everything lost counted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from support.demo_copies import BUNDLE, EVENTS, copy_clip, encode_clip
from support.media_factory import make_clip, tone

from ovavel.runtime.cli import main
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.results import Document, read_json
from ovavel.runtime.sources.media import decode, ordered
from ovavel.runtime.sources.media.arrays import to_waveform
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Gap, Samples, Window


class Answer(NamedTuple):
    """What `ovavel localize` made of one recording."""

    code: int
    document: Document
    out: str
    err: str

    @property
    def events(self) -> list[tuple[float, float, str]]:
        return [(event.start_s, event.end_s, event.label) for event in self.document.events]

    def lost_s(self, sense: str, cause: str | None = None) -> float:
        gaps = [gap for gap in self.document.gaps if gap.sense == sense and cause in (None, gap.cause)]
        return sum(gap.duration_s for gap in gaps)


@pytest.fixture
def localize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Answer]:
    def run(path: Path) -> Answer:
        folder = tmp_path / "results"
        code = main(["localize", str(path), "--bundle", str(BUNDLE), "--out", str(folder), "--format", "json"])
        said = capsys.readouterr()
        return Answer(code, read_json(folder / f"{path.name}.ovavel.json"), said.out, said.err)

    return run


class Watched(NamedTuple):
    """The windows of a recording, and what its source said."""

    windows: list[Window]
    gaps: list[Gap]
    """As the windows hold them."""
    said: list[str]
    source: MediaSource
    assembler: WindowAssembler

    def lost_s(self, sense: str, cause: str | None = None) -> float:
        return sum(gap.duration_s for gap in self.gaps if gap.sense == sense and cause in (None, gap.cause))


def watch(path: Path, **options: Any) -> Watched:
    source = MediaSource(path, **options)
    assembler = WindowAssembler(source.senses, live=False)
    windows = [window for chunk in source.chunks() for window in assembler.push(chunk)]
    windows += assembler.flush()
    notices = [*(notice for window in windows for notice in window.notices), *assembler.notices]
    said = [notice.message for notice in notices]
    counts = assembler.counts
    assert counts.frames_in == counts.frames_used + sum(counts.frames_dropped.values())
    assert counts.samples_in == counts.samples_used + sum(counts.samples_dropped.values())
    return Watched(windows, [gap for window in windows for gap in window.gaps], said, source, assembler)


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


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv", "flv"])
@pytest.mark.parametrize("threads", [1, 16])
def test_a_damaged_stretch_moves_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    localize: Callable[[Path], Answer],
    suffix: str,
    threads: int,
) -> None:
    monkeypatch.setattr(decode, "DECODER_THREADS", threads)
    path = encode_clip(tmp_path / f"clip.{suffix}")
    content = bytearray(path.read_bytes())
    start = len(content) * 52 // 100
    content[start : start + 30_000] = np.random.default_rng(0).integers(0, 256, 30_000, np.uint8).tobytes()
    path.write_bytes(content)
    answer = localize(path)
    assert len(answer.document.segments) == 40
    assert answer.document.duration_s == pytest.approx(40, abs=0.1)
    assert [event for event in answer.events if event[0] > 28] == EVENTS[4:]
    assert [event for event in answer.events if event[1] < 18] == EVENTS[:2]
    damaged = [gap for gap in answer.document.gaps if gap.cause != "timestamp jump"]
    assert {gap.sense for gap in damaged} == {"vision", "audio"}
    assert all(gap.start_s > 17 and gap.start_s + gap.duration_s < 28 for gap in damaged)
    assert answer.lost_s("vision") > 0.5
    assert answer.lost_s("audio") > 0.5


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "pcm_s16le"])
def test_an_avi_file_has_its_times_from_its_index(tmp_path: Path, codec: str) -> None:
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
    assert run.said == ([] if video_s else [f"{path} has no video"])


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
    assert run.said == [f"{path} has audio that FFmpeg has no decoder for; another track is used"]
    assert all(window.frame is not None and window.waveform is not None for window in run.windows)


def test_video_that_is_damaged_throughout(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    path = make_clip(tmp_path / "clip.mkv", codec="ffv1", audio_codec="pcm_s16le", audio_format="s16",
                     waveform=(tone(3, 16_000) * 30_000).astype(np.int16))  # fmt: skip
    whole = watch(path)
    assert len(whole.windows) == 3
    import av

    broken = tmp_path / "broken.mkv"
    with av.open(str(path)) as source, av.open(str(broken), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                copy = packet
                if packet.stream.type == "video":
                    copy = av.Packet(bytes(packet.size))
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream = streams[packet.stream.index]
                out.mux(copy)
    answer = localize(broken)
    assert answer.code == 1
    assert "nothing of the video" in answer.out
    assert answer.lost_s("vision", "damaged video") == pytest.approx(3, abs=0.1)


def wave(data: bytes, *, claimed: int, rate_hz: int = 16_000) -> bytes:
    """A WAV file of 16-bit mono whose header claims `claimed` bytes of samples."""
    header = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    riff = min(claimed + 36, 0xFFFFFFFF)
    return (
        b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt \x10\0\0\0" + header + b"data" + struct.pack("<I", claimed) + data
    )


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
    assert any("is truncated" in said for said in cut.said)


@pytest.mark.parametrize(("audio_codec", "audio_format"), [("aac", "fltp"), ("pcm_s16le", "s16")])
def test_all_that_is_missing_of_a_truncated_avi_file_is_counted(
    tmp_path: Path, audio_codec: str, audio_format: str
) -> None:
    sound = tone(10, 16_000)
    waveform = (sound * 32767).astype(np.int16) if audio_format == "s16" else sound
    path = make_clip(
        tmp_path / "clip.avi", duration_s=10, waveform=waveform, audio_codec=audio_codec, audio_format=audio_format
    )
    assert not any("truncated" in said for said in watch(path).said)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    cut = watch(path)
    assert cut.source.duration_s == pytest.approx(10, abs=0.2)
    assert len(cut.windows) == 10
    assert 1 < cut.lost_s("vision", "truncated") == pytest.approx(cut.lost_s("audio", "truncated"), abs=0.5)
    assert any("is truncated" in said for said in cut.said)


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
    assert not any("truncated" in said for said in watch(path).said)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10 // 188 * 188 + 100])
    cut = watch(path)
    assert cut.source.duration_s == pytest.approx(3.6, abs=1)
    assert any(f"is truncated: it ends at {cut.source.duration_s:.3f} s" in said for said in cut.said)


def test_a_stream_that_turns_up_late_is_passed_over(tmp_path: Path) -> None:
    """Captions that a server put into a Flash video while it was sent."""
    path = make_clip(tmp_path / "clip.flv", codec="libx264", rate_hz=44_100)

    def text(said: bytes) -> bytes:
        return len(said).to_bytes(2) + said

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
    assert run.said == []


def test_a_fragmented_file_that_cannot_be_read_to_its_end_is_truncated(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", duration_s=10, options={"movflags": "frag_keyframe+empty_moov"})
    whole = watch(path)
    assert whole.source.duration_s == pytest.approx(10, abs=0.2)
    assert whole.said == []
    content = bytearray(path.read_bytes())
    at = content.index(b"moof", len(content) // 2)
    content[at : at + 5_000] = np.random.default_rng(0).integers(0, 256, 5_000, np.uint8).tobytes()
    path.write_bytes(content)
    damaged = watch(path)
    assert 2 < damaged.source.duration_s < 8
    assert damaged.said == [f"{path} is truncated: it ends at {damaged.source.duration_s:.3f} s"]


def test_a_damaged_size_is_not_a_lack_of_memory(tmp_path: Path) -> None:
    movflags = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}
    path = make_clip(tmp_path / "clip.mp4", duration_s=6, codec="libx264", options=movflags)
    content = bytearray(path.read_bytes())
    sizes = content.index(b"trun", len(content) // 2) + 24
    content[sizes : sizes + 40] = b"\xf0" * 40
    path.write_bytes(content)
    run = watch(path)
    assert 2 < run.source.duration_s < 6
    assert run.said == [f"{path} is truncated: it ends at {run.source.duration_s:.3f} s"]


def test_a_header_without_samples_is_called_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(wave(b"", claimed=0))
    assert main(["localize", str(path), "--bundle", str(BUNDLE)]) == 1
    assert "it contains only a header" in capsys.readouterr().err


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
