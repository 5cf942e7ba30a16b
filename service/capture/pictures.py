"""A camera's pictures → the ring: its own packets where a browser can show them, H.264 of its frames elsewhere."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.service.capture.annex_b import CODECS, content_of
from ovavel.service.capture.ring import Picture, Ring, Strand

__all__ = ["FrameEncoder", "PacketCopier", "can_be_copied"]

_TICKS = 90_000
_KEY_EVERY_S = 1.0
_MOST_LOST = 65_536
_WAITING = 4
_LONGEST_SIDE = 1920


def can_be_copied(stream: Any) -> bool:
    """Whether packets of this stream can be put into a clip as they are."""
    return stream.codec_context is not None and stream.codec_context.name in CODECS


class PacketCopier:
    """Copies the packets of one connection. A `PacketTap`."""

    def __init__(self, ring: Ring, lock: threading.Lock, stream: Any, closed: Callable[[], None]) -> None:
        """Put packets of `stream` into `ring`, under `lock`; `closed` is called when the connection ends."""
        from av.bitstream import BitStreamFilterContext

        self._ring, self._lock, self._closed = ring, lock, closed
        self._codec = stream.codec_context.name
        self._strand = Strand(self._codec)
        known = stream.codec_context.extradata or b""
        # Files and some streams write lengths in place of start codes, and keep the parameter sets apart.
        lengths = known[:1] == b"\1"
        self._filter: Any = BitStreamFilterContext(f"{self._codec}_mp4toannexb", stream) if lengths else None
        self._head = b"" if lengths else content_of(known, self._codec).head
        self._early = b""  # parameter sets that came in a packet of their own

    def packet(self, packet: Any) -> None:
        """Keep the picture in `packet`. Of a damaged one nothing is kept: the source counts it when it decodes it."""
        import av

        with suppress(av.FFmpegError, ValueError):
            copy: Any = av.Packet(bytes(packet))
            copy.time_base, copy.pts, copy.dts = packet.time_base, packet.pts, packet.dts
            copy.is_keyframe = packet.is_keyframe
            for data in packet.iter_sidedata():
                copy.set_sidedata(data)
            for each in [copy] if self._filter is None else self._filter.filter(copy):
                self._take(each)

    def _take(self, packet: Any) -> None:
        data = bytes(packet)
        content = content_of(data, self._codec)
        if not content.picture:
            self._early = (self._early + data)[-_MOST_LOST:]
            return
        data, self._early = self._early + data, b""
        key = bool(packet.is_keyframe)
        if key:
            head = content_of(data, self._codec).head
            if not head:
                data = self._head + data
            self._head = head or self._head
            key = bool(self._head)  # without any, nobody could decode it
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None:
            return
        picture = Picture(data, float(shown * packet.time_base), key)
        with self._lock:
            self._ring.picture(self._strand, picture, self._head if key else b"")

    def placed(self, offset_s: float) -> None:
        """Say where the pictures are on the media clock."""
        with self._lock:
            self._strand.offset_s = offset_s

    def close(self) -> None:
        """Let go of the stream."""
        self._filter = None
        self._closed()


class FrameEncoder:
    """Encodes frames to H.264, in a thread of its own, so that a slow encoder delays no window."""

    def __init__(self, ring: Ring, lock: threading.Lock) -> None:
        """Put pictures into `ring`, under `lock`."""
        self._ring, self._lock = ring, lock
        self._frames: queue.Queue[tuple[NDArray[np.uint8], float] | None] = queue.Queue(_WAITING)
        self._encoder: Any = None
        self._strand = Strand("h264", 0.0)
        self._size = (0, 0)
        self._key_s = 0.0
        self._last_s = -float("inf")
        self._thread: threading.Thread | None = None
        self.lost = 0
        """Frames that are in no clip, because the encoder was too slow or failed."""
        self.failure = ""
        """Why nothing can be encoded."""

    def push(self, image: Callable[[], NDArray[np.uint8]], time_s: float) -> None:
        """Encode the frame of the media time `time_s`; it is dropped and counted where others still wait."""
        if self.failure:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ovavel-encode-clips", daemon=True)
            self._thread.start()
        if self._frames.full():
            self.lost += 1
            return
        self._frames.put((image(), time_s))

    def close(self) -> None:
        """Encode what waits, and end."""
        if self._thread is not None:
            self._frames.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        import av

        while (frame := self._frames.get()) is not None:
            try:
                self._encode(*frame)
            except (av.FFmpegError, ValueError, MemoryError) as error:
                self.lost += 1
                self.failure, self._encoder = f"H.264 cannot be encoded here: {error}", None
        self._encoder = None

    def _encode(self, image: NDArray[np.uint8], time_s: float) -> None:
        import av
        from av.video.frame import PictureType

        if time_s <= self._last_s or self.failure:
            return
        size = _even(image.shape[1], image.shape[0])
        if self._encoder is None or size != self._size:
            self._encoder, self._size = _h264(*size), size
            self._key_s = -float("inf")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(width=size[0], height=size[1], format="yuv420p")
        frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
        if time_s - self._key_s >= _KEY_EVERY_S:
            frame.pict_type, self._key_s = PictureType.I, time_s
        self._last_s = time_s
        for packet in self._encoder.encode(frame):
            data = bytes(packet)
            picture = Picture(data, float(packet.pts / _TICKS), bool(packet.is_keyframe))
            head = content_of(data, "h264").head if packet.is_keyframe else b""
            with self._lock:
                self._ring.picture(self._strand, picture, head)


def _even(width: int, height: int) -> tuple[int, int]:
    """The size in a clip: even, as H.264 has it, and at most that of full HD."""
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)


def _h264(width: int, height: int) -> Any:
    import av

    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, _TICKS), Fraction(25)
    encoder.gop_size = 250  # key pictures come by time
    encoder.thread_count = 1
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "crf": "25", "forced-idr": "1"}
    return encoder
