"""Clips of real recordings and streams: what is in them, decoded, and whether sound and picture are together."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.flashes import Watched, make_flashes, watch
from support.http_station import JpegCamera, TransportStream
from support.media_factory import make_clip
from support.needed import program_path
from support.proofs import proof_unless

from ovavel.eval.demo.cameras.rtsp import RTSPCamera
from ovavel.runtime.sources import Source
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Gap, Notice, Samples
from ovavel.service.capture.child import LoopedSource
from ovavel.service.capture.masks import Masks, once
from ovavel.service.capture.messages import Clip, Cut, Recording
from ovavel.service.capture.recorder import NOT_KEPT, Recorder

TOGETHER_S = 0.04
"""What nobody notices."""


class Recorded:
    """A recorder that is fed by a source, and the clips cut from it."""

    def __init__(self, folder: Path, **recording: Any) -> None:
        facts = {"ring_bytes": 1 << 26, "ring_s": 600.0, "encode": False, "sound": True, **recording}
        self.folder, self.answers = folder, list[Clip]()
        self.recorder = Recorder(Recording(**facts), self.answers.append)
        self.position_s = 0.0
        self.cuts = 0

    def feed(self, source: Source, *, masks: Masks | None = None, until: Callable[[Chunk], bool] | None = None) -> None:
        """Take all of the source, or up to a chunk."""
        for chunk in source.chunks():
            if isinstance(chunk, Frame):
                chunk = replace(chunk, image=once(chunk.image, masks or Masks(())))
            self.recorder.chunk(chunk)
            if not isinstance(chunk, Notice):
                self.position_s = max(self.position_s, chunk.start_s if isinstance(chunk, Gap) else chunk.time_s)
            self.recorder.reached(self.position_s)
            if until is not None and until(chunk):
                break
        source.close()

    def watch_camera(self, camera: RTSPCamera | JpegCamera, *, to_s: float) -> None:
        """Take what it sends up to a picture of this time, and close it."""
        with closing(camera):
            self.feed(
                MediaSource(camera.url, tap=self.recorder.tap),
                until=lambda chunk: isinstance(chunk, Frame) and chunk.time_s > to_s,
            )

    def cut(self, from_s: float, to_s: float) -> str:
        self.cuts += 1
        path = self.folder / "deep" / f"{self.cuts}.mp4"
        self.recorder.cut(Cut(event=str(path), child=0, path=str(path), from_s=from_s, to_s=to_s))
        return str(path)

    def end(self) -> dict[str, Clip]:
        self.recorder.close()
        return {each.event: each for each in self.answers}

    def watched(self, from_s: float, to_s: float) -> tuple[Clip, Watched]:
        """The one clip that is cut at the end."""
        event = self.cut(from_s, to_s)
        clip = self.end()[event]
        assert clip.error == ""
        return clip, watch(Path(event))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("h264.mp4", {}),
        ("h264.mkv", {"rate_hz": 8000}),
        ("h264.ts", {}),
        ("h264.mov", {"audio_codec": "pcm_s16le", "rate_hz": 8000}),
        ("h264.flv", {"rate_hz": 22_050}),
        ("hevc.mp4", {"codec": "libx265"}),
        ("hevc.ts", {"codec": "libx265", "b_frames": 3, "rate_hz": 44_100}),
    ],
)
def test_packets_are_copied_and_sound_stays_with_them(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    path = make_flashes(tmp_path / name, **changes)
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(path, tap=recorded.recorder.tap))
    clip, seen = recorded.watched(2.5, 5.5)
    codec = "hevc" if "hevc" in name else "h264"
    assert (clip.codec, seen.codecs, clip.has_audio) == (codec, (codec, "aac"), True)
    assert seen.first_key
    assert clip.start_s <= 2.5 <= clip.start_s + 1.1, "from the key picture before what was asked for"
    assert clip.end_s == pytest.approx(5.5, abs=0.15)
    assert seen.duration_s == pytest.approx(clip.end_s - clip.start_s, abs=0.2)
    assert set(np.round(seen.steps_s, 2)) == {0.04}, "no hole between pictures"
    assert [round(each + clip.start_s, 1) for each in seen.flashes_s][-3:] == [3, 4, 5]
    assert seen.apart_s <= TOGETHER_S


def test_ffprobe_finds_nothing_wrong_with_a_clip(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.ts")
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(path, tap=recorded.recorder.tap))
    event = recorded.cut(2, 6)
    recorded.end()
    asked = [
        program_path("ffprobe", "ffmpeg"),
        "-v",
        "warning",
        "-show_entries",
        "stream=codec_name,codec_tag_string",
        "-of",
        "csv=p=0",
        event,
    ]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    assert found.stderr == ""
    assert found.stdout.split() == ["h264,avc1", "aac,mp4a"]
    data = Path(event).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a browser can begin to play before it has all of it"


@pytest.mark.parametrize("codec", proof_unless(("mjpeg",).__contains__, ["mpeg4", "mjpeg", "libvpx-vp9"]))
def test_what_browsers_do_not_play_in_mp4_is_encoded(tmp_path: Path, codec: str) -> None:
    path = make_flashes(
        tmp_path / "a.mkv", codec=codec, b_frames=0, size=(161, 121) if codec == "mjpeg" else (160, 120)
    )
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(path, realtime=True, tap=recorded.recorder.tap))
    clip, seen = recorded.watched(2.5, 5.5)
    assert (clip.codec, seen.codecs, seen.size) == ("h264", ("h264", "aac"), (160, 120))
    assert seen.first_key
    assert [round(each + clip.start_s, 1) for each in seen.flashes_s][-3:] == [3, 4, 5]
    assert seen.apart_s <= TOGETHER_S


def test_what_is_masked_is_in_no_clip(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.mp4", duration_s=4)
    recorded = Recorded(tmp_path, encode=True)
    masks = Masks([[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]])
    recorded.feed(MediaSource(path, realtime=True, tap=recorded.recorder.tap), masks=masks)
    clip, seen = recorded.watched(0, 4)
    assert clip.codec == "h264"
    left, right = seen.mean[:, :72], seen.mean[:, 88:]
    assert left.max() < 24, "black, as encoders write it"
    assert right.min() > left.max()


def test_sound_that_is_not_kept_is_in_no_clip(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.mp4", duration_s=4)
    recorded = Recorded(tmp_path, sound=False)
    recorded.feed(MediaSource(path, tap=recorded.recorder.tap))
    clip, seen = recorded.watched(1, 3)
    assert (clip.has_audio, seen.codecs) == (False, ("h264",))


def test_a_live_stream_that_breaks_off_and_comes_back(tmp_path: Path) -> None:
    """Its packets are those that the source reads anyway; nobody opens the camera a second time."""
    clip_bytes = make_flashes(tmp_path / "a.ts", duration_s=30, group_s=0.5).read_bytes()
    station = TransportStream(clip_bytes, rate_bytes=len(clip_bytes) / 30)
    recorded = Recorded(tmp_path)
    lost: list[float] = []

    def back(chunk: Chunk) -> bool:
        if isinstance(chunk, Gap) and chunk.cause == "stream lost":
            lost.append(chunk.start_s)
        if recorded.position_s > 4 and not lost:
            station.muted.set()
        if lost:
            station.muted.clear()
        return bool(lost) and isinstance(chunk, Samples) and chunk.time_s > lost[-1] + 5

    try:
        recorded.feed(MediaSource(station.url, tap=recorded.recorder.tap), until=back)
    finally:
        station.stop()
    before, after = recorded.cut(1, 3), recorded.cut(lost[-1] + 2, lost[-1] + 4)
    clips = recorded.end()
    for event in (before, after):
        assert clips[event].error == ""
        seen = watch(Path(event))
        assert seen.first_key
        assert seen.codecs == ("h264", "aac")
        assert len(seen.flashes_s) >= 1
        assert seen.apart_s <= TOGETHER_S


@pytest.mark.parametrize("b_frames", proof_unless((2).__eq__, [0, 2]))
def test_a_camera_over_rtsp(tmp_path: Path, b_frames: int) -> None:
    """Without times of decoding, and with parameter sets that are in no packet."""
    camera = RTSPCamera(make_flashes(tmp_path / "a.mp4", duration_s=30, group_s=2, b_frames=b_frames), 0.0)
    recorded = Recorded(tmp_path)
    recorded.watch_camera(camera, to_s=8)
    clip, seen = recorded.watched(3, 6)
    assert (clip.codec, seen.codecs) == ("h264", ("h264", "aac"))
    assert seen.first_key
    assert clip.start_s <= 3
    assert clip.end_s == pytest.approx(6, abs=0.3)
    assert max(seen.steps_s) < 0.1
    assert len(seen.flashes_s) >= 3
    assert seen.apart_s <= TOGETHER_S


def test_a_camera_of_jpegs_over_http(tmp_path: Path) -> None:
    camera = JpegCamera()
    recorded = Recorded(tmp_path)
    recorded.watch_camera(camera, to_s=4)
    clip, seen = recorded.watched(1, 3)
    assert (clip.codec, seen.codecs, seen.size) == ("h264", ("h264",), (160, 120))
    assert clip.start_s == pytest.approx(1, abs=1.2)
    sent = [each - camera.sent_s[0] for each in camera.sent_s]
    assert seen.pictures > 0.5 * sum(clip.start_s <= each <= clip.end_s for each in sent)


def test_a_file_that_is_played_again_and_again(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.mp4", duration_s=3)
    recorded = Recorded(tmp_path)
    source = LoopedSource(str(path), recorder=recorded.recorder)
    recorded.feed(source, until=lambda chunk: isinstance(chunk, Frame) and chunk.time_s > 7)
    clip, seen = recorded.watched(1.5, 6.5)
    assert not clip.note, "another round of the same file is no other format"
    assert [round(each + clip.start_s, 1) for each in seen.flashes_s] == [2, 3, 4, 5, 6]
    assert seen.apart_s <= TOGETHER_S


def test_pictures_whose_size_changes_are_cut_at_the_change(tmp_path: Path) -> None:
    small = make_flashes(tmp_path / "small.ts", duration_s=3).read_bytes()
    large = make_flashes(tmp_path / "large.ts", duration_s=6, size=(320, 240)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(small + large)
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(tmp_path / "joined.ts", tap=recorded.recorder.tap))
    clip, seen = recorded.watched(0, 9)
    assert "format" in clip.note
    assert seen.size == (320, 240), "the longer part"
    assert clip.start_s == pytest.approx(3, abs=0.2)
    assert seen.apart_s <= TOGETHER_S


def test_sound_whose_rate_changes_is_one_sound(tmp_path: Path) -> None:
    from ovavel.service.capture.sound import SoundEncoder

    encoder = SoundEncoder()
    found = []
    for rate_hz, begin_s in ((16_000, 0.0), (44_100, 1.0), (8_000, 2.0)):
        for index in range(10):
            waveform = np.zeros((1, rate_hz // 10), np.float32)
            time_s = begin_s + index / 10
            found += encoder.push(Samples(time_s=time_s, captured_s=0, waveform=waveform, rate_hz=rate_hz))
    assert encoder.format is not None
    assert encoder.format.rate_hz == 16_000
    times_s = [each.time_s for each in found]
    assert times_s == sorted(times_s)
    assert times_s[-1] > 2.5


@pytest.mark.parametrize("hole_s", [0.1, 0.9, 5.0])
def test_sound_after_a_pause_is_in_its_place(hole_s: float) -> None:
    from ovavel.service.capture.sound import SoundEncoder

    encoder = SoundEncoder()
    rng = np.random.default_rng(0)
    found = []
    for time_s in [*np.arange(0, 1, 0.1), *np.arange(1 + hole_s, 2 + hole_s, 0.1)]:
        waveform = rng.normal(0, 0.1, (1, 1600)).astype(np.float32)
        found += encoder.push(Samples(time_s=float(time_s), captured_s=0, waveform=waveform, rate_hz=16_000))
    ends = [each.time_s for each in found if each.time_s > 1.2 + hole_s]
    assert ends, "what comes after it is encoded"
    assert max(each.time_s for each in found) < 2 + hole_s


def test_what_is_not_kept_cannot_be_cut(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.mp4", duration_s=3)
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(path, tap=recorded.recorder.tap))
    event = recorded.cut(100, 110)
    assert recorded.end()[event].error == NOT_KEPT
    assert not list(tmp_path.rglob("*.mp4.*"))


def test_a_clip_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = make_flashes(tmp_path / "a.mp4", duration_s=3)
    recorded = Recorded(tmp_path)
    recorded.feed(MediaSource(path, tap=recorded.recorder.tap))
    (tmp_path / "deep").write_text("no folder")
    event = recorded.cut(0, 3)
    assert recorded.end()[event].error != ""


def test_a_clip_waits_for_its_end(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", duration_s=6, codec="libx264")
    recorded = Recorded(tmp_path)
    event = recorded.cut(0, 4)
    early: list[float] = []

    def looked(chunk: Chunk) -> bool:
        if recorded.answers:
            early.append(recorded.position_s)
        return False

    recorded.feed(MediaSource(path, tap=recorded.recorder.tap), until=looked)
    clip = recorded.end()[event]
    assert clip.end_s == pytest.approx(4, abs=0.2)
    assert all(each >= 5 for each in early)


@pytest.fixture(autouse=True)
def _no_part_files(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob("*.part"))
