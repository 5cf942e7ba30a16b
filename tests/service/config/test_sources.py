"""What a source is: the same rules for the site file, and for what `@FILE` and `env:NAME` lead to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.errors import UsageError
from ovavel.service.config.site import Camera
from ovavel.service.config.sources import check_source, device_file, is_encoded

DEVICES = st.one_of(st.integers(0, 999).map(str), st.integers(0, 999).map(lambda number: f"/dev/video{number}"))
FILES = st.sampled_from(["a.mp4", "/media/a.mp4", "./0", "file:///media/a.mp4", "/dev/shm/a.mp4"])
ADDRESSES = st.sampled_from(["rtsp://camera/1", "http://camera/mjpeg", "UDP://224.0.0.1:5000"])
MICROPHONES = st.one_of(st.none(), st.sampled_from(["default", "0", "USB Audio"]))


def refused(source: str, *, microphone: str | None, sound: bool, loop: bool) -> bool:
    try:
        check_source(source, microphone=microphone, sound=sound, loop=loop)
    except UsageError:
        return True
    return False


@given(DEVICES, MICROPHONES, st.booleans(), st.booleans())
def test_a_camera_of_this_machine_needs_a_microphone_to_be_heard(
    source: str, microphone: str | None, sound: bool, loop: bool
) -> None:
    assert refused(source, microphone=microphone, sound=sound, loop=loop) == (loop or (sound and microphone is None))


@given(FILES, MICROPHONES, st.booleans(), st.booleans())
def test_a_file_brings_its_own_sound(source: str, microphone: str | None, sound: bool, loop: bool) -> None:
    assert refused(source, microphone=microphone, sound=sound, loop=loop) == (microphone is not None)


@given(ADDRESSES, MICROPHONES, st.booleans(), st.booleans())
def test_an_address_may_have_a_microphone_of_this_machine(
    source: str, microphone: str | None, sound: bool, loop: bool
) -> None:
    assert refused(source, microphone=microphone, sound=sound, loop=loop) == loop


@given(st.integers(0, 999))
def test_a_camera_has_one_device_file_whatever_it_is_called(number: int) -> None:
    assert device_file(str(number)) == device_file(f"/dev/video{number}") == f"/dev/video{number}"


def test_a_device_is_found_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.realpath", lambda path: {"/dev/v4l/by-id/usb-desk": "/dev/video0"}[str(path)])
    assert device_file("/dev/v4l/by-id/usb-desk") == device_file("0")
    assert device_file(str(tmp_path / "a.mp4")) is None
    assert device_file("rtsp://camera/1") is None


@pytest.mark.parametrize(
    ("facts", "encoded"),
    [
        ({"source": "rtsp://camera/1"}, False),
        ({"source": "rtsp://camera/1", "transcode": True}, True),
        ({"source": "rtsp://camera/1", "microphone": "default"}, True),
        ({"source": "0", "sound": False}, True),
        ({"source": "@gate.txt"}, False),
        ({"source": "@gate.txt", "microphone": "default"}, True),
    ],
)
def test_devices_have_no_packets_to_copy(facts: dict, encoded: bool) -> None:
    assert is_encoded(Camera(id="gate", **facts)) == encoded
