"""What a tap is shown: every packet of pictures before it is decoded, and where it is on the media clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.http_station import JpegCamera
from support.media_factory import make_clip

from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Frame


class Tap:
    def __init__(self, stream: Any) -> None:
        self.codec = stream.codec_context.name
        self.times_s: list[float] = []
        self.offsets_s: set[float] = set()
        self.closed = False

    def packet(self, packet: Any) -> None:
        assert not self.closed
        assert packet.stream.container.streams.video, "its container is open"
        self.times_s.append(float(packet.pts * packet.time_base))

    def placed(self, offset_s: float) -> None:
        self.offsets_s.add(offset_s)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
def test_packets_and_frames_are_on_one_clock(tmp_path: Path, name: str) -> None:
    taps: list[Tap] = []

    def opened(stream: Any) -> Tap:
        taps.append(Tap(stream))
        return taps[-1]

    path = make_clip(tmp_path / name, duration_s=2, codec="libx264")
    frames = [each.time_s for each in MediaSource(path, tap=opened).chunks() if isinstance(each, Frame)]
    (tap,) = taps
    (offset_s,) = tap.offsets_s
    assert tap.codec == "h264"
    assert [time_s + offset_s for time_s in sorted(tap.times_s)] == pytest.approx(frames, abs=2e-3)
    assert tap.closed


def test_a_tap_that_is_not_wanted_and_a_source_without_pictures(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", duration_s=1)
    assert any(isinstance(each, Frame) for each in MediaSource(path, tap=lambda _: None).chunks())
    opened: list[Any] = []
    list(MediaSource(path, video=False, tap=opened.append).chunks())
    assert opened == []


def test_pictures_without_timestamps_have_no_tap() -> None:
    camera, opened = JpegCamera(), list[Any]()
    source = MediaSource(camera.url, tap=opened.append)
    try:
        assert next(each for each in source.chunks() if isinstance(each, Frame))
    finally:
        source.close()
        camera.stop()
    assert opened == []
