"""What names a camera of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.sources.access import is_network
from ovavel.runtime.sources.devices import camera_device


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("0", 0),
        ("12", 12),
        ("/dev/video0", "/dev/video0"),
        ("/dev/v4l/by-id/usb-Desk-video-index0", "/dev/v4l/by-id/usb-Desk-video-index0"),
        ("", None),
        ("-1", None),
        ("./0", None),
        ("1234567890", None),
        ("clip.mp4", None),
        ("dev/video0", None),
        ("/dev/shm/clip.mp4", None),
        ("rtsp://camera/0", None),
    ],
)
def test_a_camera_of_this_machine_is_an_index_or_a_device_file(text: str, device: int | str | None) -> None:
    assert camera_device(text) == device


@given(st.text())
def test_nothing_is_an_address_and_a_device(text: str) -> None:
    assert not (is_network(text) and camera_device(text) is not None)
