"""Recordings and network streams as sources, made on the spot; see also `media_factory`."""

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closed_after import closed_after
from support.http_station import TransportStream
from support.media_factory import colour_of_second, make_clip, tone

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.sources.media.decode import Media, Piece
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Gap, Notice, Samples, Sense

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


def test_left_out_on_purpose(tmp_path: Path) -> None:
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
def test_truncated_delivers_what_it_has(tmp_path: Path, suffix: str) -> None:
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


def test_truncated_without_its_index_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(MediaError, match="its end is missing"):
        MediaSource(path)


def test_damaged_packets_are_counted_and_passed_over(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("step_s", [1e6, 40.0])
def test_a_splice_is_declared_and_keeps_sound_and_picture_together(tmp_path: Path, step_s: float) -> None:
    def spliced(time_s: float) -> float:
        return time_s + 2 + (step_s if time_s >= 2 else 0)

    path = make_clip(tmp_path / "clip.mkv", duration_s=4, video_stamps=spliced, audio_stamps=spliced)
    played = Played(path)
    played.check_clock()
    assert {(gap.sense, gap.cause) for gap in played.gaps} >= {
        ("vision", "timestamp jump"),
        ("audio", "timestamp jump"),
    }
    assert sum(gap.duration_s for gap in played.gaps) < 3
    assert any("jump" in text for text in played.reported)
    assert [frame.time_s for frame in played.frames] == pytest.approx([index / 25 for index in range(100)], abs=0.13)
    assert played.blocks[-1].time_s == pytest.approx(3.97, abs=0.13)


def test_timestamps_that_run_backwards(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", duration_s=2, codec="mpeg2video", **MP2_SOUND) for n in range(2)]
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    played = Played(path)
    played.check_clock()
    assert {(gap.sense, gap.cause) for gap in played.gaps} >= {
        ("vision", "timestamp jump"),
        ("audio", "timestamp jump"),
    }
    assert played.frames[-1].time_s == pytest.approx(3.96, abs=0.2)
    assert played.blocks[-1].time_s == pytest.approx(3.95, abs=0.2)
    # sound and picture of the second part are still together
    again = [
        frame.time_s
        for frame in played.frames[50:]
        if np.abs(frame.image()[60, 80] - 0.0 - colour_of_second(1)).max() < 20
    ]
    assert again[0] == pytest.approx(3.0, abs=0.2)


def test_a_pause_in_the_timestamps_is_kept_and_declared(tmp_path: Path) -> None:
    def paused(time_s: float) -> float:
        return time_s + (3 if time_s >= 2 else 0)

    played = Played(make_clip(tmp_path / "clip.mkv", duration_s=4, video_stamps=paused, audio_stamps=paused))
    played.check_clock()
    for sense in ("vision", "audio"):
        gaps = [gap for gap in played.gaps if gap.sense == sense]
        assert {gap.cause for gap in gaps} == {"no video" if sense == "vision" else "no audio"}
        assert gaps[0].start_s == pytest.approx(2.0, abs=0.1)
        assert sum(gap.duration_s for gap in gaps) == pytest.approx(3.0, abs=0.1)
    assert played.frames[-1].time_s == pytest.approx(6.96, abs=0.01)


def test_sound_that_ends_early_is_declared(tmp_path: Path) -> None:
    played = Played(make_clip(tmp_path / "clip.mp4", duration_s=14, fps=5, waveform=tone(1, 16_000)))
    missing = [gap for gap in played.gaps if gap.cause == "no audio"]
    assert missing[0].start_s == pytest.approx(1, abs=0.1)
    assert missing[-1].start_s + missing[-1].duration_s == pytest.approx(14, abs=0.2)
    for before, after in itertools.pairwise(missing):
        assert after.start_s == pytest.approx(before.start_s + before.duration_s)


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


@pytest.fixture(scope="module")
def stream_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stream") / "clip.ts"
    sound = (tone(20, 16_000) * 30_000).astype(np.int16)
    return make_clip(path, duration_s=20, codec="mpeg2video", **{**MP2_SOUND, "waveform": sound}).read_bytes()


@pytest.fixture
def station(stream_bytes: bytes) -> Iterator[TransportStream]:
    station = TransportStream(stream_bytes, rate_bytes=len(stream_bytes) / 20)
    yield station
    station.stop()


@pytest.mark.timeout(300)
def test_a_stream_that_freezes_and_comes_back(station: TransportStream) -> None:
    reported: list[tuple[float, str]] = []
    source = MediaSource(station.url)
    assert source.live
    assert source.senses == {"vision", "audio"}
    assert source.duration_s is None
    begin_s = time.monotonic()
    chunks: list[Chunk] = []
    back = 0
    for chunk in closed_after(source, 200, lambda text: reported.append((time.monotonic(), text))):
        chunks.append(chunk)
        if isinstance(chunk, Frame) and chunk.time_s > 1 and not reported:
            station.muted.set()
        if reported and station.muted.is_set():
            station.muted.clear()
        if reported and "is back" in reported[-1][1]:
            back += isinstance(chunk, Frame)
            if back > 25:
                source.close()
    (lost_s, lost), *_, (back_s, again) = reported
    assert "is lost" in lost
    assert "is back" in again
    gaps = [chunk for chunk in chunks if isinstance(chunk, Gap) and chunk.cause == "stream lost"]
    assert {gap.sense for gap in gaps} == {"vision", "audio"}
    assert sum(gap.duration_s for gap in gaps if gap.sense == "vision") > 2
    for sense in (Frame, Samples):
        times = [chunk.time_s for chunk in chunks if isinstance(chunk, sense)]
        assert times == sorted(times)
    # Media time went on with the clock on the wall: the gap ends between the two messages, on that clock. What was
    # captured before, on the wall, says where its zero is.
    last = chunks.index(gaps[-1])
    zero_s = min(chunk.captured_s - chunk.time_s for chunk in chunks[:last] if not isinstance(chunk, Gap))
    end_s = gaps[-1].start_s + gaps[-1].duration_s
    assert lost_s - zero_s <= end_s <= back_s - min(zero_s, begin_s)
    after = [chunk for chunk in chunks[last:] if not isinstance(chunk, Gap)]
    assert after[0].time_s == pytest.approx(end_s, abs=0.1)


@pytest.mark.timeout(300)
def test_a_stream_that_is_cut_and_restarted(station: TransportStream, stream_bytes: bytes) -> None:
    reported: list[str] = []
    source = MediaSource(station.url)
    cut = False
    restarted: TransportStream | None = None
    for chunk in closed_after(source, 200, reported.append):
        if isinstance(chunk, Frame) and chunk.time_s > 0.5 and not cut:
            cut = True
            station.stop()
        elif isinstance(chunk, Gap) and restarted is None and cut:
            restarted = TransportStream(stream_bytes, rate_bytes=len(stream_bytes) / 20, port=station.port)
        elif isinstance(chunk, Frame) and restarted is not None and "back" in reported[-1]:
            source.close()
    assert ["is lost" in reported[0], "is back" in reported[-1]] == [True, True]
    assert restarted is not None
    restarted.stop()


def test_close_ends_chunks_though_the_network_holds_the_reader(
    station: TransportStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, released = threading.Event(), threading.Event()
    pieces_of = Media.pieces

    def pieces(media: Media) -> Iterator[Piece]:
        yield next(pieces_of(media))
        held.set()
        released.wait()  # as a read that never returns

    monkeypatch.setattr(Media, "pieces", pieces)
    source = MediaSource(station.url)
    chunks = source.chunks()
    next(chunks)
    assert held.wait(100)
    threading.Timer(0.3, source.close).start()
    assert not [chunk for chunk in chunks if not isinstance(chunk, Gap)]
    assert not released.is_set()
    released.set()


def test_nobody_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaError, match=f"127.0.0.1:{port}.*check the address"):
        MediaSource(f"http://127.0.0.1:{port}/nothing")


def test_a_whole_file_over_http_is_a_recording(tmp_path: Path) -> None:
    content = make_clip(tmp_path / "clip.mp4", options={"movflags": "faststart"}).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        source = MediaSource(f"http://127.0.0.1:{server.server_address[1]}/clip.mp4")
        assert not source.live
        assert sum(isinstance(chunk, Frame) for chunk in source.chunks()) == 75
    finally:
        server.shutdown()
        server.server_close()


def test_a_login_is_never_shown() -> None:
    with pytest.raises(MediaError) as refused:
        MediaSource("http://user:secret@127.0.0.1:9/stream")
    assert "127.0.0.1:9/stream" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_udp_stream_is_watched_until_closed(stream_bytes: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    stopped = threading.Event()

    def send() -> None:
        packet = 7 * 188  # as many packets of the transport stream as fit a datagram
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for at in range(0, len(stream_bytes), packet):
                sender.sendto(stream_bytes[at : at + packet], ("127.0.0.1", port))
                if stopped.wait(20 * packet / len(stream_bytes)):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = MediaSource(f"udp://127.0.0.1:{port}")
        assert source.live
        assert not source.recorded
        assert source.senses == {"vision", "audio"}
        colours, heard_s = [], 0.0
        for chunk in source.chunks():
            if isinstance(chunk, Samples):
                heard_s += chunk.waveform.shape[1] / chunk.rate_hz
            if isinstance(chunk, Frame) and len(colours) < 50:
                colours.append(chunk.image().mean(axis=(0, 1)))
            if len(colours) == 50 and heard_s > 1.5:
                source.close()
    finally:
        stopped.set()
        thread.join()
    assert np.ptp(np.array(colours), axis=0).max() > 50, "the picture changes its colour every second"
