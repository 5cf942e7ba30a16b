"""Opening media with PyAV and decoding it, piece by piece."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.errors import MediaError
from ovavel.runtime.types import Sense

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.video.frame import VideoFrame

__all__ = ["Media", "Piece", "is_network", "open_media", "to_image", "to_waveform", "without_login"]

# H, W frame height and width; n samples in a block

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 2.5
"""A network read that brings nothing for so long is lost."""
MAX_DEMUX_FAILURES = 100
"""So many unreadable packets in a row, and the rest of a file is given up."""
SIZED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm", "avi", "wav", "flac", "flv", "asf", "w64", "aiff", "caf"})
"""Containers whose header tells the length; for others FFmpeg guesses it from the bit rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One decoded frame or block of sound, or the place of one that was damaged."""

    sense: Sense
    stamp_s: float | None
    """The stream's own time, in seconds."""
    duration_s: float
    data: VideoFrame | AudioFrame | None
    """None where it was damaged."""


def is_network(url: str) -> bool:
    """Whether `url` has a scheme other than file: (`rtsp://…`, `http://…`, `udp://…`)."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    return scheme is not None and scheme[1].lower() != "file"


class Media:
    """An open container and the streams of it that are used. Belongs to one thread at a time."""

    def __init__(self, container: InputContainer, *, name: str, audio: bool, video: bool) -> None:
        """Choose the streams. Raises MediaError if none is left."""
        from av.stream import Disposition

        self._container = container
        self.truncated = False
        """Whether the end came in the middle of a packet, or the file could not be read on."""
        usable = [stream for stream in container.streams if stream.type in ("audio", "video")]
        undecodable = [stream for stream in usable if getattr(stream, "codec_context", None) is None]
        pictures = [s for s in usable if s.type == "video" and not s.disposition & Disposition.attached_pic]
        sounds = [stream for stream in usable if stream.type == "audio"]
        found: dict[Sense, list[Any]] = {"vision": pictures, "audio": sounds}
        wanted: dict[Sense, bool] = {"vision": video, "audio": audio}
        self.streams: dict[Sense, Any] = {}
        for sense, streams in found.items():
            streams = [stream for stream in streams if stream not in undecodable]
            default = [stream for stream in streams if stream.disposition & Disposition.default]
            if wanted[sense] and streams:
                self.streams[sense] = (default or streams)[0]
        if not self.streams:
            has = sorted({stream.type for stream in usable if stream not in undecodable})
            if undecodable:
                why = "FFmpeg has no decoder for its streams"
            elif has:
                why = f"it holds only {' and '.join(has)}, which was left out (or is a cover picture)"
            else:
                why = "it holds neither video nor audio"
            raise MediaError(f"{name} cannot be used: {why}. Give another file, or leave nothing out")
        for stream in self.streams.values():
            stream.thread_type = "AUTO"

    @property
    def origin_s(self) -> float | None:
        """The streams' own time at which the first of those used starts, where known."""
        starts = [float(s.start_time * s.time_base) for s in self.streams.values() if s.start_time is not None]
        return min(starts, default=None)

    @property
    def duration_s(self) -> float | None:
        """Length of what is used, from its earliest start to its latest end, where a header tells it."""
        if not SIZED_FORMATS & set(self._container.format.name.split(",")):
            return None
        ends = [
            float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            for stream in self.streams.values()
            if stream.duration is not None
        ]
        if len(ends) < len(self.streams):
            return None if self._container.duration is None else self._container.duration / 1e6
        return max(ends) - (self.origin_s or 0.0)

    def pieces(self) -> Iterator[Piece]:
        """Decode in the order of the container until it ends.

        Raises:
            av.error.FFmpegError: the network failed.
        """
        from av.error import InvalidDataError

        senses = {stream.index: sense for sense, stream in self.streams.items()}
        failures = 0
        packets = self._container.demux(*self.streams.values())
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except InvalidDataError:
                failures += 1
                if failures > MAX_DEMUX_FAILURES:
                    self.truncated = True
                    return
                packets = self._container.demux(*self.streams.values())
                continue
            failures = 0
            if packet.size:
                self.truncated = packet.is_corrupt
            yield from self._decode(packet, senses[packet.stream.index])

    def decode_at_once(self) -> None:
        """Hold no frame back: decoding whole frames on several threads is faster, but each thread keeps one."""
        for stream in self.streams.values():
            stream.thread_type = "SLICE"

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def _decode(self, packet: Any, sense: Sense) -> Iterator[Piece]:
        from av.error import FFmpegError

        stamp = packet.pts if packet.pts is not None else packet.dts
        usual_s = _seconds(packet.duration, packet.time_base) or self._usual_s(sense)
        try:
            frames = packet.decode()
        except (FFmpegError, ValueError):
            if packet.size:
                stamp_s = None if stamp is None else float(stamp * packet.time_base)
                yield Piece(sense=sense, stamp_s=stamp_s, duration_s=usual_s, data=None)
            return
        for frame in frames:
            if sense == "audio":
                duration_s = frame.samples / frame.sample_rate
            else:
                duration_s = _seconds(frame.duration, frame.time_base) or usual_s
            data = None if frame.is_corrupt else frame
            yield Piece(sense=sense, stamp_s=frame.time, duration_s=duration_s, data=data)

    def _usual_s(self, sense: Sense) -> float:
        rate = self.streams[sense].average_rate if sense == "vision" else None
        return float(1 / rate) if rate else 0.04


def open_media(url: str, *, audio: bool, video: bool) -> Media:
    """Open a file or network stream and find its streams, without decoding it.

    Raises:
        MediaError: it does not exist, cannot be reached, is no media, or holds nothing of what is wanted.
    """
    import av
    from av.error import ExitError, FFmpegError

    name = without_login(url)
    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    try:
        if is_network(url):
            container = av.open(url, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
        else:
            container = av.open(f"file:{_check_file(url)}")
    except ExitError as error:
        raise MediaError(
            f"{name} cannot be opened: nothing came for {OPEN_TIMEOUT_S:g} s; check the address"
        ) from error
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        mend = "check the address" if is_network(url) else "it is no media file, or the end of it is missing"
        raise MediaError(f"{name} cannot be opened: {reason} ({mend})") from error
    try:
        return Media(container, name=name, audio=audio, video=video)
    except BaseException:
        container.close()
        raise


def without_login(url: str) -> str:
    """`url` without its user name and password, to be shown and written down."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def to_image(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, turned and mirrored as the recording asks for. Pixels that are not square stay so.

    Raises:
        MediaError: FFmpeg cannot convert it.
    """
    from av.error import FFmpegError

    try:
        image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
    except (FFmpegError, ValueError) as error:
        raise MediaError(
            f"a frame of {frame.width} × {frame.height} pixels in format {frame.format.name} cannot be converted to "
            f"RGB ({error}); convert the recording first"
        ) from error
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return image
    # x' = a x + c y, y' = b x + d y in 16.16 fixed point, rows (a, b, u), (c, d, v), (x, y, w)
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def to_waveform(frame: AudioFrame) -> NDArray[np.float32]:
    """(channels, n) float32; whole numbers are scaled to [-1, 1)."""
    block: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        block = block.reshape(-1, frame.layout.nb_channels).T
    if block.dtype == np.uint8:
        block = (block.astype(np.float32) - 128) / 128
    elif block.dtype.kind == "i":
        block = block * np.float32(-1 / int(np.iinfo(block.dtype).min))
    return np.ascontiguousarray(block, dtype=np.float32)


def _check_file(path: str) -> str:
    """The path of a regular file with something in it. Raises MediaError."""
    path = path.removeprefix("file://")
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise MediaError(f"there is no file {path}; check the path") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path} is a folder; give a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path} is not a regular file; cameras are opened with `ovavel live --camera`")
    if status.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    return path


def _seconds(ticks: int | None, time_base: Any) -> float | None:
    return float(ticks * time_base) if ticks and time_base else None
