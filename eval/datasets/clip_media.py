"""Frames and sound of one clip of OV-AVEBench, and their possible damage.

Shapes: T segments of a clip (10); H, W frame height and width; C channels; n samples.
"""

from __future__ import annotations

import re
import warnings
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.access import pixel_limit
from ovavel.runtime.system.files import not_regular
from ovavel.runtime.types import RATE_HZ, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CLIP_SAMPLES",
    "KINDS",
    "SEGMENTS",
    "ClipMedia",
    "DamagedClip",
    "fit",
    "frame_paths",
    "read_frame",
    "read_frames",
    "read_sound",
    "to_windows",
]

SEGMENTS = 10
"""T."""

CLIP_SAMPLES = SEGMENTS * RATE_HZ

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_FRAME_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Of Pillow, whatever the suffix says: it would hand others to other programs (EPS to Ghostscript)."""

KINDS = (
    "label missing",
    "label unreadable",
    "label of wrong length",
    "label of another class",
    "no video file",
    "video empty",
    "video unreadable",
    "video too short",
    "no pictures",
    "pictures missing",
    "no sound",
    "no sound file",
    "sound unreadable",
    "sound truncated",
    "sound empty",
    "no frames folder",
    "wrong number of frames",
    "frame order unclear",
    "frame unreadable",
    "frame truncated",
    "frame too large",
)
"""All kinds of damage that a clip can have, in the order in which they are looked for."""

_DIGITS = re.compile("([0-9]+)")

_UNKNOWN_BYTES = 0x7FFFFFFF - 0xFFFF
"""A wav file claims so many bytes or more when it was written to a pipe, and its length was not known."""


class DamagedClip(MediaError):  # noqa: N818 - it names the clip, as one says it
    """A clip that cannot be used: its annotation or its media are missing, unreadable or not as they should be."""

    def __init__(self, kind: str, message: str) -> None:
        """`kind` is one of `KINDS`; `message` says what was wrong and where."""
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[DamagedClip], tuple[str, str]]:
        return type(self), (self.kind, str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMedia:
    """Ten seconds of media."""

    frames: tuple[NDArray[np.uint8], ...]
    """T frames, each (H, W, 3) uint8 RGB: the middle frame of each second."""
    waveform: NDArray[np.float32]
    """(C, n) float32 in [-1, 1], cut or padded with zeros to ten seconds at any rate."""


def to_windows(media: ClipMedia) -> list[Window]:
    """The T windows of a clip, as a recording would have given them."""
    second = media.waveform.shape[1] // SEGMENTS
    return [
        Window(
            index=index,
            start_s=float(index),
            frame=frame,
            waveform=np.ascontiguousarray(media.waveform[:, index * second : (index + 1) * second]),
            captured_s=0.0,
        )
        for index, frame in enumerate(media.frames)
    ]


def fit(waveform: NDArray[np.float32], rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """(C, n) → (C, T · rate): cut, or padded with zeros at the end (docs/method.md, Segment)."""
    samples = SEGMENTS * rate_hz
    waveform = waveform[:, :samples]
    missing = samples - waveform.shape[1]
    return np.pad(waveform, ((0, 0), (0, missing))) if missing else waveform


def read_sound(path: Path, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """(C, n) float32 at this rate: the first ten seconds at most, whatever rate and format the file has.

    Raises:
        DamagedClip: there is no such file, or its sound is unreadable, truncated or empty.
    """
    try:
        if why := not_regular(path):
            raise DamagedClip("sound unreadable", f"{path} {why}, not a file")
        waveform = _read_wave(path, rate_hz)
    except FileNotFoundError:
        raise DamagedClip("no sound file", f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DamagedClip("sound unreadable", f"{path} cannot be read: {reason}") from error
    if waveform is None:
        waveform = _read_any(path, rate_hz)
    if not waveform.shape[1]:
        raise DamagedClip("sound empty", f"{path} holds no samples")
    return waveform


def frame_paths(folder: Path) -> list[Path]:
    """The T images of a clip, in name order. Hidden files, files of other kinds, and pipes and devices do not count.

    Names that differ in their numbers alone, not padded with zeros (`1.png … 10.png`), are in the order of the numbers.

    Raises:
        DamagedClip: there is no such folder, it cannot be read, it does not hold exactly ten images, or their names
            have numbers and no clear order.
    """
    try:
        named = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith(".")
        )
        paths = [path for path in named if not _is_special(path)]
    except (OSError, ValueError) as error:
        reason = f"there is no folder {folder}" if isinstance(error, FileNotFoundError) else f"{folder}: {error}"
        raise DamagedClip("no frames folder", reason) from error
    if len(paths) != SEGMENTS:
        others = f" ({len(named) - len(paths)} more are no files)" if len(named) > len(paths) else ""
        raise DamagedClip("wrong number of frames", f"{folder} holds {len(paths)} images instead of {SEGMENTS}{others}")
    return _in_time_order(paths, folder)


def _in_time_order(paths: list[Path], folder: Path) -> list[Path]:
    """Sort what is in name order by its numbers, where these are in another order."""
    names = [_DIGITS.split(path.stem) for path in paths]  # text, number, text, number, …, text
    numbers = [tuple(int(part) for part in name[1::2]) for name in names]
    numbered = len({tuple(name[::2]) for name in names}) == 1 and len(set(numbers)) == SEGMENTS
    if not numbered or numbers == sorted(numbers):
        return paths
    ordered = sorted(zip(numbers, paths, strict=True))
    columns = zip(*(number for number, _ in ordered), strict=True)
    if any(list(column) != sorted(column) for column in columns):
        raise DamagedClip(
            "frame order unclear",
            f"the numbers in the names of the images in {folder} ({paths[0].name} … {paths[-1].name}) are neither in "
            "name order nor all in one order; give each as many digits",
        )
    return [path for _, path in ordered]


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device; a link that leads nowhere is none."""
    try:
        return not path.is_dir() and bool(not_regular(path))
    except FileNotFoundError:
        return False


def read_frames(folder: Path) -> tuple[NDArray[np.uint8], ...]:
    """T frames, each (H, W, 3) uint8 RGB.

    Raises:
        DamagedClip: there are not exactly ten, or one is unreadable or truncated.
    """
    return tuple(read_frame(path) for path in frame_paths(folder))


def read_frame(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. A truncated image is an error, never filled up with grey.

    Raises:
        DamagedClip: it is unreadable, truncated or too large (`OVAVEL_MAX_PIXELS`).
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if why := not_regular(path):
            raise DamagedClip("frame unreadable", f"{path} {why}, not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of what else Pillow finds odd
            with Image.open(path, formats=_FRAME_FORMATS) as image:
                if image.width * image.height > (most := pixel_limit()):
                    size = f"{image.width} × {image.height} pixels, and {most} are allowed"
                    raise DamagedClip("frame too large", f"{path} has {size}; OVAVEL_MAX_PIXELS raises the limit")
                return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DamagedClip("frame unreadable", f"{path} is not an image of a known format") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DamagedClip("frame too large", f"{path} has more than {most} pixels, which Pillow never reads") from error
    except (OSError, SyntaxError, ValueError) as error:
        kind = "frame truncated" if "truncated" in str(error) else "frame unreadable"
        raise DamagedClip(kind, f"{path}: {error}") from error


def _read_wave(path: Path, wanted_hz: int) -> NDArray[np.float32] | None:
    """The fast path: 16-bit PCM at the wanted rate. None for anything else, which FFmpeg may know how to read."""
    try:
        with wave.open(str(path), "rb") as sound:
            channels, width, rate_hz, claimed = sound.getparams()[:4]
            if (width, rate_hz) != (2, wanted_hz) or not channels:
                return None
            whole = min(claimed, SEGMENTS * rate_hz)
            data = sound.readframes(whole)
    except (wave.Error, EOFError):
        return None
    n = len(data) // (2 * channels)
    if n < whole and claimed * 2 * channels < _UNKNOWN_BYTES:
        raise _truncated(path, n, claimed)
    samples = np.frombuffer(data, "<i2", n * channels).reshape(n, channels)
    return np.ascontiguousarray(samples.T, dtype=np.float32) * np.float32(1 / 32768)


def _read_any(path: Path, wanted_hz: int) -> NDArray[np.float32]:
    """Any rate and format that FFmpeg reads."""
    import soxr
    from av.error import FFmpegError

    from ovavel.runtime.sources.media.arrays import to_waveform
    from ovavel.runtime.sources.media.decode import open_media

    if not path.stat().st_size:
        raise DamagedClip("sound empty", f"{path} is empty (0 bytes)")
    try:
        media = open_media(str(path), audio=True, video=False)
    except MediaError as error:
        raise DamagedClip("sound unreadable", str(error)) from error
    blocks: list[NDArray[np.float32]] = []
    seconds, rate_hz = 0.0, 0
    try:
        for piece in media.pieces():
            if seconds >= SEGMENTS:
                break
            if piece.jumped:
                continue
            if piece.data is None:
                raise DamagedClip("sound unreadable", f"{path} is damaged at {seconds:.3f} s")
            data: object = piece.data
            block, rate = to_waveform(data), int(data.sample_rate)  # type: ignore[arg-type,attr-defined]
            if blocks and (rate, len(block)) != (rate_hz, len(blocks[0])):
                raise DamagedClip("sound unreadable", f"{path} changes its rate or channels at {seconds:.3f} s")
            if not np.isfinite(block).all():
                raise DamagedClip("sound unreadable", f"{path} contains values that are not numbers at {seconds:.3f} s")
            rate_hz = rate
            blocks.append(block)
            seconds += block.shape[1] / rate
        # PyAV 19 no longer has it once the file is closed
        claimed_s = max(0.0, (media.duration_s or 0.0) - media.run_in_s)
    except (FFmpegError, ValueError) as error:
        raise DamagedClip("sound unreadable", f"{path}: {error}") from error
    finally:
        media.close()
    if not blocks:
        raise DamagedClip("sound empty", f"{path} holds no samples")
    if seconds < SEGMENTS and (media.truncated or claimed_s - seconds > 0.1):
        raise _truncated(path, round(seconds * rate_hz), round(claimed_s * rate_hz))
    waveform = np.concatenate(blocks, axis=1)[:, : SEGMENTS * rate_hz]
    if rate_hz != wanted_hz:
        resampled: NDArray[np.float32] = soxr.resample(waveform.T, rate_hz, wanted_hz, quality="HQ").T
        waveform = resampled
    return np.ascontiguousarray(waveform[:, : SEGMENTS * wanted_hz], dtype=np.float32)


def _truncated(path: Path, samples: int, claimed: int) -> DamagedClip:
    return DamagedClip("sound truncated", f"{path} ends after {samples} of the {claimed} samples it claims to hold")
