"""List the cameras and microphones of this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovavel.runtime.errors import DeviceError, MissingExtraError, OvavelError
from ovavel.runtime.reporting.text import one_line, shown_name

__all__ = [
    "Camera",
    "Devices",
    "Microphone",
    "camera_device",
    "index_or_name",
    "list_cameras",
    "list_devices",
    "list_microphones",
    "load_sounddevice",
]

PROBED_CAMERAS = 4
"""How many indexes to try where the system does not list cameras."""
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - a folder of files, the only one among devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A camera that OpenCV can open."""

    index: int
    name: str
    path: str | None = None
    """Device file, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Microphone:
    """A sound input listed by PortAudio."""

    index: int
    name: str
    channels: int
    rate_hz: int
    """Native sample rate."""
    default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Available cameras and microphones. `str()` formats a list for users."""

    cameras: tuple[Camera, ...]
    microphones: tuple[Microphone, ...]
    problems: tuple[str, ...] = ()
    """Why something could not be listed, and what to do about it."""

    def __str__(self) -> str:
        lines = ["Cameras (--camera INDEX, or a URL)"]
        lines += [f"  {camera.index:>3}  {shown_name(camera.name)}" for camera in self.cameras] or ["  none found"]
        lines += ["Microphones (--microphone INDEX, NAME or a part of it)"]
        for microphone in self.microphones:
            mark = "  (default)" if microphone.default else ""
            inputs = f"{microphone.channels} in, {microphone.rate_hz} Hz"
            lines.append(f"  {microphone.index:>3}  {shown_name(microphone.name)}, {inputs}{mark}")
        if not self.microphones:
            lines.append("  none found")
        return "\n".join([*lines, *map(one_line, self.problems)])


def index_or_name(text: str) -> int | str:
    """Parse a device on the command line: digits are an index, anything else is a name, path or URL."""
    return int(text) if text.isdecimal() and len(text) < 10 else text


def camera_device(text: str) -> int | str | None:
    """The index or the device file of a camera that `text` names; None for an address or a file."""
    device = index_or_name(text)
    here = isinstance(device, int) or (device.startswith("/dev/") and not device.startswith(_SHARED_MEMORY))
    return device if here else None


def list_devices() -> Devices:
    """List all devices; errors are collected in `problems` instead of being raised."""
    problems = []
    cameras: tuple[Camera, ...] = ()
    microphones: tuple[Microphone, ...] = ()
    try:
        cameras = list_cameras()
    except OvavelError as error:
        problems.append(str(error))
    try:
        microphones = list_microphones()
    except OvavelError as error:
        problems.append(str(error))
    return Devices(cameras=cameras, microphones=microphones, problems=tuple(problems))


def list_cameras(*, folder: Path = Path("/sys/class/video4linux")) -> tuple[Camera, ...]:
    """List cameras by index: on Linux those that the kernel lists in `folder`, elsewhere those that can be opened.

    Raises:
        MissingExtraError: not on Linux, and OpenCV is not installed.
    """
    if not sys.platform.startswith("linux"):
        return _probe_cameras()
    cameras = []
    for entry in folder.glob("video*") if folder.is_dir() else ():
        number = entry.name.removeprefix("video")
        if number.isdecimal() and _delivers_pictures(entry):
            name = (entry / "name").read_text(encoding="utf-8", errors="replace").strip()
            cameras.append(Camera(index=int(number), name=name, path=f"/dev/{entry.name}"))
    return tuple(sorted(cameras, key=lambda camera: camera.index))


def list_microphones() -> tuple[Microphone, ...]:
    """List the sound inputs by index.

    Raises:
        MissingExtraError: sounddevice is not installed.
        DeviceError: the PortAudio library is not installed.
    """
    sounddevice = load_sounddevice()
    default = sounddevice.default.device[0]
    return tuple(
        Microphone(
            index=index,
            name=device["name"],
            channels=device["max_input_channels"],
            rate_hz=int(device["default_samplerate"]),
            default=index == default,
        )
        for index, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    )


def load_sounddevice() -> Any:
    """Import sounddevice, which loads PortAudio.

    Raises:
        MissingExtraError: sounddevice is not installed.
        DeviceError: the PortAudio library is not installed, or does not start.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "live", need="Using a microphone") from error
    except OSError as error:
        raise DeviceError(
            f"the PortAudio library is not installed ({error}). "
            "Install it with: sudo apt install libportaudio2 (Debian, Ubuntu)"
        ) from error
    except Exception as error:
        # importing sounddevice starts PortAudio, and raises PortAudioError if that fails
        raise DeviceError(f"PortAudio does not start ({error}); check the sound system of this machine") from error
    return sounddevice


def _delivers_pictures(entry: Path) -> bool:
    """Whether it is the first node of its camera; the others deliver metadata."""
    index = entry / "index"
    return not index.is_file() or index.read_text(encoding="ascii", errors="replace").strip() in ("", "0")


def _probe_cameras() -> tuple[Camera, ...]:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv", "live", need="Listing cameras") from error
    cameras = []
    for index in range(PROBED_CAMERAS):
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            cameras.append(Camera(index=index, name=f"camera {index} ({capture.getBackendName()})"))
        capture.release()
    return tuple(cameras)
