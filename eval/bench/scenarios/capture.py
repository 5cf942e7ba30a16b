"""Capture: latency from camera to decision, of a full session on a network camera that sends capture times."""

from __future__ import annotations

import time

from ovavel.eval.bench.camera import CAMERA, StampingCamera, read_frame_s, read_sound_s
from ovavel.eval.bench.report import Capture, Spread
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import MediaError
from ovavel.runtime.session import Session
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import WINDOW_S

__all__ = ["CAPTURE_RULE", "run_capture"]

_SKIPPED = 2
"""First windows, which queued up while the stream was opened."""
_PATIENCE = 4

CAPTURE_RULE = (
    "a camera on loopback draws its clock into each frame and into the sound; a session reads the stream as `ovavel "
    f"live` does, and the clock is read back from the decided window; the first {_SKIPPED} windows do not count"
)


def run_capture(bundle: Bundle, backend: Backend, count: int) -> Capture:
    """Decide on `count` windows of a live camera, at its speed; fewer if the backend drops some.

    Raises:
        MediaError: no window showed its time.
    """
    frame_ms: list[float] = []
    sound_ms: list[float] = []
    camera = StampingCamera()
    try:
        with Session(bundle, MediaSource(camera.url), backend=backend) as session:
            until_s = time.monotonic() + (count + _SKIPPED) * WINDOW_S * _PATIENCE
            for update in session.updates():
                now_s, window = time.monotonic(), update.window
                if window is None or window.index < _SKIPPED or update.latency_ms is None:
                    continue
                if window.frame is not None and (drawn_s := read_frame_s(window.frame, now_s)) is not None:
                    frame_ms.append((now_s - drawn_s) * 1e3)
                if window.waveform is not None and not window.gaps:
                    sound_ms.append((now_s - read_sound_s(window.waveform, now_s)) * 1e3)
                if len(frame_ms) >= count or now_s > until_s:
                    break
            dropped = sum(session.stats.dropped.values())
    finally:
        camera.close()
    if not frame_ms:
        raise MediaError("no window of the stamping camera showed its time; is the machine too busy to show a frame?")
    return Capture(
        windows=len(frame_ms),
        frame_ms=Spread.of(frame_ms),
        sound_ms=Spread.of(sound_ms) if sound_ms else None,
        dropped=dropped,
        camera=CAMERA,
    )
