"""How a day of a camera lies on disk (docs/archive.md, Format): names, numbers and bits. Pure.

Shapes: N seconds, D embedding size of a sense, W bits of a sense: the power of two that holds D, 64 at least.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ovavel.runtime.errors import UsageError
from ovavel.runtime.types import Sense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = [
    "CONTEXT",
    "DAY_S",
    "FLAGS",
    "GENERATION",
    "HEADER",
    "NO_AUDIO",
    "NO_VISION",
    "VERSION",
    "WRITTEN",
    "ContextSecond",
    "Header",
    "Model",
    "camera_folder",
    "camera_name",
    "day_folders",
    "day_of",
    "day_of_folder",
    "is_camera_folder",
    "model_of",
    "pack_bits",
    "packed_words",
    "quantized",
    "row_bytes",
]

VERSION = 1
CONTEXT = "context"
"""Folder of the archive that holds the cameras."""
HEADER = "header.json"
FLAGS = "flags.u8"
DAY_S = 86_400

WRITTEN, NO_VISION, NO_AUDIO = 1, 2, 4
"""Bits of a flag. Without WRITTEN the second is not in the archive, whatever else there is."""
GENERATION = 0xF0
"""Bits of a flag that change when a second is written again, so that a reader knows."""

_LONGEST_FOLDER = 255
_UNSAFE = re.compile(r"[/%\x00-\x1f\x7f]|^\.")
_DAY_FOLDER = re.compile(r"(\d{4}-\d\d-\d\d)(\.[0-9a-f]{16})?")
_Size = Annotated[int, Meta(ge=1, le=2**16)]


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What made the vectors. Only vectors of one model are compared with each other, or with its texts."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    """Hash of what decides which space the vectors lie in: encoders, weights and head; neither names nor precision,
    but whether sound is pooled."""
    name: str
    head: str
    """Kind of the head."""
    audio_size: _Size
    """D of audio."""
    vision_size: _Size
    """D of vision."""

    def size(self, sense: Sense) -> int:
        """D of `sense`."""
        return self.audio_size if sense == "audio" else self.vision_size


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of `header.json`."""

    version: int
    camera: str
    day: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    """UTC."""
    model: Model

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContextSecond:
    """One second as the archive keeps it."""

    utc_s: int
    """Unix time at which it begins, in whole seconds."""
    vision: NDArray[np.float32] | None
    """(D,) unit norm: the head's context vector, or the embedding itself where nothing was heard; None: not seen."""
    audio: NDArray[np.float32] | None
    """Likewise for what was heard."""

    def of(self, sense: Sense) -> NDArray[np.float32] | None:
        """The vector of `sense`."""
        return self.audio if sense == "audio" else self.vision

    @property
    def flag(self) -> int:
        """What `flags.u8` says of it, without a generation."""
        return WRITTEN | (NO_VISION if self.vision is None else 0) | (NO_AUDIO if self.audio is None else 0)


def model_of(bundle: Bundle, *, pooled: bool = False) -> Model:
    """Say what makes the vectors of `bundle`, `pooled`: in a precision that pools the tokens of sound.

    A bundle keeps its id when its vocabulary, calibration or gates change, and in another precision, whose vectors
    differ by rounding. Pooled sound has an id of its own: its vectors differ by more.
    """
    manifest, encoders = bundle.manifest, bundle.manifest.encoders
    model = manifest.model
    facts: tuple[object, ...] = (
        msgspec.to_builtins(encoders),
        model.weights_sha256,
        model.config,
        (model.head, model.head_layers, model.head_sha256, manifest.fusion.audio_scale),
    )
    if pooled:
        facts = (*facts, "pooled sound")
    return Model(
        id=hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()[:16],
        name=f"{model.name} with pooled sound" if pooled else model.name,
        head=model.head,
        audio_size=encoders.audio.embedding_size,
        vision_size=encoders.vision.embedding_size,
    )


def day_of(utc_s: int) -> tuple[date, int]:
    """Return the UTC day of a Unix time, and the second of it."""
    days, row = divmod(utc_s, DAY_S)
    try:
        return date(1970, 1, 1) + timedelta(days=days), row
    except OverflowError as error:
        raise UsageError(f"there is no date {utc_s} s after 1970; check the time") from error


def start_of(day: date) -> int:
    """Return the Unix time at which a UTC day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def camera_folder(camera: str) -> str:
    """Return the name of a camera's folder: its own, with what a file's name cannot hold as %XX.

    Raises:
        UsageError: it is empty or too long.
    """
    folder = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), camera)
    try:
        length = len(folder.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"the name of a camera must be text, not {camera!a}; give another one") from error
    if not 0 < length <= _LONGEST_FOLDER:
        raise UsageError(f"the name of a camera has from 1 to {_LONGEST_FOLDER} bytes, not {length}: {camera[:40]!r}…")
    return folder


def camera_name(folder: str) -> str:
    """Return the camera whose folder this is."""
    return unquote(folder, errors="surrogateescape")


def day_folders(day: str, model: Model) -> tuple[str, str]:
    """Return the names that the folder of a day may have: the second is for where another model has the first."""
    return day, f"{day}.{model.id}"


def day_of_folder(name: str) -> date | None:
    """Return the day of a folder that has one of the names of `day_folders`; None for any other folder."""
    found = _DAY_FOLDER.fullmatch(name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def is_camera_folder(name: str) -> bool:
    """Whether a folder of this name is that of a camera: `camera_folder` gives no others."""
    try:
        return camera_folder(camera_name(name)) == name
    except UsageError:
        return False


def row_bytes(model: Model) -> dict[str, int]:
    """Bytes of a second in each file of a day."""
    return {
        "vision.i8": model.vision_size,
        "audio.i8": model.audio_size,
        "scale.f32": 8,
        "bits.u64": 8 * (packed_words(model.vision_size) + packed_words(model.audio_size)),
        FLAGS: 1,
    }


def packed_words(size: int) -> int:
    """How many 64-bit words the bits of a vector of `size` take."""
    return max(64, 1 << (size - 1).bit_length()) // 64


def quantized(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(N, D) → int8 (N, D) and the scale (N,) float32 that they are multiplied by; a vector of zeros has scale 0."""
    scale = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
    values = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None]).clip(-127, 127).astype(np.int8)
    return values, scale


def pack_bits(vectors: NDArray[Any]) -> NDArray[np.uint64]:
    """(N, D) of int8 or any float → (N, W / 64): the signs of the vectors, rotated so that each one says as much.

    Of two vectors at an angle of α about α / π of the W bits differ. Integers are computed exactly, so that every
    machine gets the same bits.
    """
    size = vectors.shape[1]
    width = 64 * packed_words(size)
    kind = np.float64 if vectors.dtype.kind == "f" else np.int32 if width <= 4096 else np.int64
    rotated = np.zeros((len(vectors), width), kind)
    rotated[:, :size] = vectors
    for signs in _signs(width):
        rotated = _hadamard(rotated * signs.astype(kind))
    packed = np.packbits(rotated >= 0, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8")


@functools.cache
def _signs(width: int) -> tuple[NDArray[np.int8], ...]:
    """Two rows of signs: the bits of SHA-256 of "ovavel 0", "ovavel 1" and so on, where 1 is plus."""
    digests = b"".join(hashlib.sha256(f"ovavel {n}".encode()).digest() for n in range(-(-2 * width // 256)))
    bits = np.unpackbits(np.frombuffer(digests, np.uint8), bitorder="little")[: 2 * width]
    rows = np.where(bits, 1, -1).astype(np.int8).reshape(2, width)
    return rows[0], rows[1]


def _hadamard(rows: NDArray[Any]) -> NDArray[Any]:
    """(N, W) times the Hadamard matrix, whose element i, j is -1 to the number of ones in i & j."""
    count, width = rows.shape
    step = 1
    while step < width:
        pairs = rows.reshape(count, -1, 2, step)
        rows = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        rows = rows.reshape(count, width)
        step *= 2
    return rows
