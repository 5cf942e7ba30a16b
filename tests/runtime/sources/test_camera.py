"""What a camera that OpenCV opens with FFmpeg may lead to, and how large its pictures may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_station import HttpStation, JpegCamera
from support.media_factory import make_clip

from ovavel.runtime.cli import main
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.sources.camera import _capture_options
from ovavel.runtime.sources.camera_mic import CameraMicSource

VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
LARGE = 160 * 120 - 1


class Once(HttpStation):
    """Sends `body` to whoever asks, and counts them."""

    def __init__(self, body: bytes) -> None:
        self.body, self.asked = body, 0
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/list.m3u8"

    def send(self, out: BinaryIO) -> None:
        self.asked += 1
        out.write(self.body)


@pytest.fixture
def stations() -> Iterator[Callable[[HttpStation], HttpStation]]:
    made: list[HttpStation] = []

    def make(station: HttpStation) -> HttpStation:
        made.append(station)
        return station

    yield make
    for station in made:
        station.stop()


def refused(camera: str) -> str:
    with pytest.raises(DeviceError) as error:
        CameraMicSource(camera, None)
    return str(error.value)


@pytest.mark.parametrize("given", ["", "rtsp_transport;udp", "protocol_whitelist;file,http,https,tcp,tls,crypto,data"])
def test_a_playlist_of_a_camera_leads_to_no_file(
    given: str, stations: Callable[[HttpStation], HttpStation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    segment = make_clip(tmp_path / "segment.ts", duration_s=1, fps=5)
    server = stations(Once(PLAYLIST.format(f"file://{segment}").encode()))
    assert isinstance(server, Once)
    assert "cannot be opened" in refused(server.url)
    assert server.asked
    assert os.environ[VARIABLE] == given


def test_a_camera_that_is_a_path_leads_to_no_address(
    stations: Callable[[HttpStation], HttpStation], tmp_path: Path
) -> None:
    segment = make_clip(tmp_path / "segment.ts", duration_s=1, fps=5)
    server = stations(Once(segment.read_bytes()))
    assert isinstance(server, Once)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format(server.url.replace("list.m3u8", "segment.ts")))
    assert "cannot be opened" in refused(str(tmp_path / "list.m3u8"))
    assert not server.asked


NAMES = st.sampled_from(
    ["rtsp_transport", "protocol_whitelist", " protocol_whitelist", "protocol_\\whitelist", "flags"]
)


@given(st.lists(st.tuples(NAMES, st.text("abc,_/. ", max_size=8)).map(";".join)), st.booleans())
def test_own_options_of_opencv_are_kept_and_protocols_are_not_among_them(options: list[str], address: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "|".join(options))
        with _capture_options("rtsp://host/x" if address else "clip.mp4"):
            first, *others = os.environ[VARIABLE].split("|")
        assert first == "protocol_whitelist;" + ("rtsp,rtp,udp,tcp,tls" if address else "file")
        if any(options):
            assert others == [each for each in options if "whitelist" not in each]
        assert os.environ[VARIABLE] == "|".join(options)


def test_a_camera_with_large_pictures_is_refused(
    stations: Callable[[HttpStation], HttpStation], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = stations(JpegCamera())
    assert isinstance(camera, JpegCamera)
    for most in (LARGE, None):
        if most is None:
            monkeypatch.setenv("OVAVEL_MAX_PIXELS", str(LARGE))
        with pytest.raises(DeviceError, match=f"160 × 120 pixels, and {LARGE} pixels are allowed.*--max-pixels"):
            CameraMicSource(camera.url, None, max_pixels=most)
    CameraMicSource(camera.url, None, max_pixels=LARGE + 1).close()


def test_the_command_limits_the_pictures_of_a_camera(
    stations: Callable[[HttpStation], HttpStation], exported_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = stations(JpegCamera())
    assert isinstance(camera, JpegCamera)
    command = [
        "live",
        "--bundle",
        exported_bundle,
        "--camera",
        camera.url,
        "--no-audio",
        "--view",
        "none",
        "--max-pixels",
        LARGE,
    ]
    assert main(list(map(str, command))) == 1
    assert f"160 × 120 pixels, and {LARGE} pixels are allowed" in capfd.readouterr().err
