"""A camera, read by a thread that keeps only the newest frame."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovavel.runtime.errors import DeviceError, MissingExtraError
from ovavel.runtime.reporting.redaction import redacted, without_secrets
from ovavel.runtime.sources.access import check_scheme, is_network, pixel_limit, protocols_of
from ovavel.runtime.sources.connection import Feed
from ovavel.runtime.sources.devices import list_cameras

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CameraFeed", "Picture"]

# H, W frame height and width

OPEN_TIMEOUT_MS = 4000
READ_TIMEOUT_MS = 2500
FFMPEG_OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
}
"""FFmpeg options for network cameras: reliable transport and no added delay."""
_WHITELIST = "protocol_whitelist"
_OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_opening = threading.Lock()
"""OpenCV reads this variable when it opens a stream; it applies to the whole process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A frame as OpenCV delivers it."""

    captured_s: float
    """Monotonic clock when it was captured, as far as known."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) uint8 BGR."""

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        import cv2

        image: NDArray[np.uint8] = cv2.cvtColor(self.pixels, cv2.COLOR_BGR2RGB)
        return image


class CameraFeed(Feed):
    """Grabs frames continuously, so that none waits in the driver, and keeps the newest."""

    def __init__(self, camera: int | str, notify: Callable[[Feed], None], *, max_pixels: int | None = None) -> None:
        """Prepare to open `camera`, an index, a /dev/video file or a URL; `notify` is called for each frame.

        Frames of more than `max_pixels` are refused: `OVAVEL_MAX_PIXELS` or 8192 × 8192 by default.

        Raises:
            UsageError: the scheme of the URL is not supported.
        """
        if isinstance(camera, str) and is_network(camera):
            check_scheme(camera)
        self._max_pixels = pixel_limit() if max_pixels is None else max_pixels
        super().__init__(f"camera {without_secrets(str(camera))}", address=str(camera))
        self._camera = camera
        self._notify = notify
        self._lock = threading.Lock()
        self._newest: Picture | None = None

    def take(self) -> Picture | None:
        """Return the newest frame, once."""
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def _serve(self) -> None:
        cv2 = _load_cv2()
        capture = _open(cv2, self._camera)
        try:
            # the kernel stamps each buffer with the monotonic clock
            stamped = capture.getBackendName() == "V4L2"
            size = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
            self._check_size(*map(int, map(capture.get, size)))
            while not self.stopping.is_set():
                if not capture.grab():
                    raise DeviceError("no picture came" if self.opened.is_set() else _refused(self._camera))
                captured_s = time.monotonic()
                if stamped:
                    age_s = captured_s - capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                    captured_s -= age_s if 0 <= age_s < 1 else 0
                decoded, pixels = capture.retrieve()
                if decoded:
                    self._check_size(pixels.shape[1], pixels.shape[0])
                    self._keep(Picture(captured_s=captured_s, pixels=pixels))
        finally:
            capture.release()

    def _check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is too large. Raises DeviceError."""
        most = self._max_pixels
        if width * height > most:
            raise DeviceError(
                f"camera {without_secrets(str(self._camera))} cannot be used: its pictures are too large: they have "
                f"{width} × {height} pixels, and {most} pixels are allowed; set a smaller size at the camera, or raise "
                "the limit with --max-pixels or OVAVEL_MAX_PIXELS"
            )

    def _keep(self, picture: Picture) -> None:
        with self._lock:
            waiting, self._newest = self._newest is not None, picture
        self.bring()
        if not waiting:
            self._notify(self)


def _load_cv2() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when a stream is opened: nothing on the terminal
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv", "live", need="Using a camera") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _open(cv2: Any, camera: int | str) -> Any:
    if isinstance(camera, str):
        resolved = str(Path(camera).resolve()) if camera.startswith("/dev/") else camera
        number = resolved.removeprefix("/dev/video")
        camera = int(number) if number.isdecimal() else camera
    if isinstance(camera, int):
        capture = cv2.VideoCapture(camera)
    else:
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        with _capture_options(camera):
            # several decoder threads would delay frames
            capture = cv2.VideoCapture(camera, cv2.CAP_FFMPEG, [*timeouts, cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        capture.release()
        raise DeviceError(_refused(camera))
    return capture


@contextmanager
def _capture_options(camera: str) -> Iterator[None]:
    """Have OpenCV open `camera` with FFmpeg's options: the user's own or ours, but only the protocols it may use."""
    with _opening:
        given = os.environ.get(_OPTIONS_VARIABLE)
        wanted = given.split("|") if given else list(map(";".join, FFMPEG_OPTIONS.items()))
        # FFmpeg reads names without blanks, quotes and backslashes, and stops at what it cannot read: ours is first
        kept = [each for each in wanted if re.sub(r"[\s'\\]", "", each.partition(";")[0]) != _WHITELIST]
        os.environ[_OPTIONS_VARIABLE] = "|".join((f"{_WHITELIST};{protocols_of(camera)}", *kept))
        try:
            yield
        finally:
            if given is None:
                del os.environ[_OPTIONS_VARIABLE]
            else:
                os.environ[_OPTIONS_VARIABLE] = given


def _refused(camera: int | str) -> str:
    """Why `camera` cannot be opened, as far as is known, and what there is instead."""
    if isinstance(camera, str) and "://" in camera:
        return (
            f"camera {without_secrets(camera)} cannot be opened: {_why_not(camera)}; "
            "check the address, and that it is switched on"
        )
    found = list_cameras()
    there = "; ".join(f"{each.index}: {each.name}" for each in found) or "none"
    path = Path(camera if isinstance(camera, str) else f"/dev/video{camera}")
    if not path.exists():
        why = f"there is no {without_secrets(str(path))}"
    elif not os.access(path, os.R_OK | os.W_OK):
        why = f"{path} cannot be read; add yourself to its group: sudo usermod -aG video $USER"
    else:
        why = "it is in use by another program or delivers no frames"
    return f"camera {without_secrets(str(camera))} cannot be opened: {why}. Cameras of this machine: {there}"


def _why_not(address: str) -> str:
    """What FFmpeg says of a camera's address: OpenCV opens it with FFmpeg, and keeps the reason to itself."""
    import av
    from av.error import ExitError, FFmpegError

    try:
        options = {**FFMPEG_OPTIONS, _WHITELIST: protocols_of(address)}
        av.open(address, options=options, timeout=OPEN_TIMEOUT_MS / 1e3).close()
    except ExitError:
        return f"no data for {OPEN_TIMEOUT_MS / 1e3:g} s"
    except (FFmpegError, OSError, ValueError) as error:
        return redacted(getattr(error, "strerror", None) or str(error), address)
    return "it responds, but OpenCV cannot read it"
