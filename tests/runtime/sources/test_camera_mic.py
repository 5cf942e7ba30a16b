"""A real camera: OpenCV on a stream of JPEG pictures."""

import re
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from support.closed_after import closed_after
from support.http_station import JpegCamera

from ovavel.runtime.errors import DeviceError, MissingExtraError, UsageError
from ovavel.runtime.install import install_command
from ovavel.runtime.sources.camera import CameraFeed, Picture
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.sources.connection import FROZEN_S, GAP_EVERY_S
from ovavel.runtime.types import Chunk, Frame, Gap


@pytest.fixture
def camera() -> Iterator[JpegCamera]:
    camera = JpegCamera()
    yield camera
    camera.stop()


def test_frames_carry_their_capture_time_and_colour(camera: JpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.runtime.sources.camera.READ_TIMEOUT_MS", 100_000)
    monkeypatch.setattr("ovavel.runtime.sources.connection.FROZEN_S", 100)
    source = CameraMicSource(camera.url, None)
    assert source.senses == {"vision"}
    assert source.live
    assert source.duration_s is None
    assert camera.url in source.name
    frames: list[Frame] = []
    taken_s: list[float] = []
    changed: Frame | None = None
    begin_s = time.monotonic()
    for chunk in closed_after(source, 60):
        assert isinstance(chunk, Frame)
        frames.append(chunk)
        taken_s.append(time.monotonic())
        if len(frames) == 10:
            assert chunk.image()[60, 80] == pytest.approx((200, 30, 30), abs=8)
            camera.change((30, 60, 220), pictures=3)
        if chunk.image()[60, 80, 2] > 150:
            changed = chunk
            break
    assert changed is not None, "more is held back than one frame on its way, and one in OpenCV"
    assert changed.image().dtype == np.uint8
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(set(times_s))
    zero_s = frames[0].captured_s - times_s[0]
    assert begin_s <= zero_s <= taken_s[0]
    for frame, sent_s, now_s in zip(frames, camera.sent_s, taken_s, strict=False):
        assert frame.captured_s - frame.time_s == pytest.approx(zero_s)
        assert sent_s <= frame.captured_s <= now_s


def test_killing_and_restarting_the_camera_is_survived(camera: JpegCamera) -> None:
    reported: list[str] = []
    source = CameraMicSource(camera.url, None)
    killed = False
    again: JpegCamera | None = None
    chunks = []
    for chunk in closed_after(source, 100, reported.append):
        chunks.append(chunk)
        if isinstance(chunk, Frame) and chunk.time_s > 0.5 and not killed:
            killed = True
            assert reported == []
            camera.stop()
        elif isinstance(chunk, Gap) and again is None:
            again = JpegCamera(port=camera.port)
        elif isinstance(chunk, Frame) and again is not None:
            break
    assert again is not None
    again.stop()
    assert ["is lost" in reported[0], "is back" in reported[-1]] == [True, True]
    assert all("is still lost" in text for text in reported[1:-1])
    gaps = [chunk for chunk in chunks if isinstance(chunk, Gap)]
    assert {(gap.sense, gap.cause) for gap in gaps} == {("vision", "camera lost")}
    # the gaps touch each other, and fill the time between the frames around them
    edges = [(gap.start_s, gap.start_s + gap.duration_s) for gap in gaps]
    assert [start for start, _ in edges[1:]] == pytest.approx([end for _, end in edges[:-1]])
    before = [chunk for chunk in chunks[: chunks.index(gaps[0])] if isinstance(chunk, Frame)][-1]
    assert edges[0][0] == pytest.approx(before.time_s)
    assert edges[-1][1] == pytest.approx(chunks[-1].time_s)


def test_a_frozen_camera_is_noticed(camera: JpegCamera) -> None:
    assert FROZEN_S + GAP_EVERY_S < 3, "when is in tests/runtime/sources/test_connection.py"
    reported: list[str] = []
    chunks: list[Chunk] = []
    for chunk in closed_after(CameraMicSource(camera.url, None), 60, reported.append):
        chunks.append(chunk)
        if not camera.muted.is_set():
            assert reported == []
            camera.muted.set()
        elif isinstance(chunk, Gap):
            break
    assert isinstance(chunks[-1], Gap)
    assert "is lost" in reported[0]


def test_a_camera_that_never_returns_does_not_hold_up_close(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def serve(feed: CameraFeed) -> None:
        feed._keep(Picture(captured_s=time.monotonic(), pixels=np.zeros((2, 2, 3), np.uint8)))
        released.wait()

    monkeypatch.setattr(CameraFeed, "_serve", serve)
    source = CameraMicSource("hangs", None)
    for _ in source.chunks():
        threading.Thread(target=source.close).start()
    assert not released.is_set()
    released.set()


def test_a_picture_that_stays_the_same_is_not_lost(camera: JpegCamera) -> None:
    reported: list[str] = []
    chunks: list[Chunk] = []
    for chunk in closed_after(CameraMicSource(camera.url, None), 60, reported.append):
        chunks.append(chunk)
        if isinstance(chunk, Frame) and chunk.time_s > FROZEN_S + 1:
            break
    assert reported == []
    assert all(isinstance(chunk, Frame) for chunk in chunks)
    assert len(chunks) > 2


def test_no_device_is_refused() -> None:
    with pytest.raises(UsageError, match="neither"):
        CameraMicSource(None, None)


def test_a_missing_camera_lists_those_available() -> None:
    with pytest.raises(
        DeviceError, match=r"camera 97 cannot be opened: there is no /dev/video97.*Cameras of this mach"
    ):
        CameraMicSource(97, None)


def test_a_camera_address_where_nothing_listens(camera: JpegCamera) -> None:
    camera.stop()
    with pytest.raises(DeviceError, match="cannot be opened: Connection refused; check the address"):
        CameraMicSource(camera.url, None)


def test_opencv_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("live"))):
        CameraMicSource(0, None)
